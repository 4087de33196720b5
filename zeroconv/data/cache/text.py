"""Text states of captions, computed once: one row a different caption."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from zeroconv.backbones import is_split
from zeroconv.backbones.text import chunk_counts
from zeroconv.data.cache import waiting
from zeroconv.data.cache.chunks import chunks
from zeroconv.data.cache.examples import Captions, TextTable, narrow
from zeroconv.data.cache.kept import just_written, kept
from zeroconv.data.cache.settings import SHARD
from zeroconv.data.cache.weights import weights_key
from zeroconv.data.storage.shards import Shard, Store, content_key, default_root
from zeroconv.prompts import Prompt, parse

TOKENS = 32  # of a chunk, where captions have as many states as tokens
TOGETHER = 8  # captions that T5 or Qwen reads at a time
FORMAT = 4  # of the shards; a change makes new ones (4: long captions in chunks, none is cut)


def cache_text(
    backbone: Any,
    texts: Iterable[Sequence[str]],
    root: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    rank: int = 0,
    world: int = 1,
    weighted: bool = False,
) -> TextTable:
    """States of the empty prompt (row 0) and of every different caption; of `world` processes each
    makes its share. weighted: captions are read with A1111's weights, else as they stand.
    """
    unique = list(dict.fromkeys(["", *(caption for variants in texts for caption in variants)]))
    store, encoder = Store(root or default_root(), "text"), text_key(backbone)
    began = time.monotonic()
    parts = list(chunks(unique, SHARD))
    way = ["weighted"] if weighted else []
    keys = [content_key(FORMAT, encoder, part, *way) for part in parts]

    def made(number: int) -> Shard:
        shard = kept(store, keys[number], _holds_texts(len(parts[number])))

        if shard is None:
            store.write(keys[number], _states(backbone, parts[number], weighted))
            shard = just_written(store, keys[number])

            if progress is not None and time.monotonic() - began > 2:
                progress("captions", sum(map(len, parts[: number + 1])), len(unique))
        return shard

    if world > 1:
        for number in range(rank, len(parts), world):
            made(number)
        waiting.wait(keys, store.has, patience=30)
    shards = [made(number) for number in range(len(parts))]
    return TextTable(shards, Captions.of(unique), weighted)


def text_key(backbone: Any) -> str:
    """Names the text encoders by their weights, and the tokenizers by what they make of a
    sentence.
    """
    probe = "A small red ball, 2 cubes & a person's hat on the left; über-bright sky."
    options: dict[str, Any] = {"padding": "max_length", "truncation": True}
    tokens = [
        list(map(int, t(probe, **options, max_length=_most(t)).input_ids))
        for t in backbone.tokenizers
    ]
    return content_key(weights_key(backbone.text_encoders), tokens, backbone.default_size)


def _states(backbone: Any, captions: list[str], weighted: bool) -> dict[str, ndarray]:
    """`hidden` (M, L, D), one row a chunk, and where some have several, `chunks` (N,): how many
    each caption has. `pooled` and `time_ids` are one row a caption.
    """
    read: list[str | Prompt] = [parse(text) for text in captions] if weighted else [*captions]
    counts = np.array(chunk_counts(backbone, read), np.int64)
    hidden: list[list[Tensor]] = [[] for _ in captions]
    others: dict[str, list[Tensor]] = {"pooled": [], "time_ids": []}
    order: list[int] = []

    if not is_split(backbone):
        return _states_of_sentences(backbone, read)
    for count in np.unique(counts):  # captions of one length at a time, so that none is filled up
        rows = np.flatnonzero(counts == count).tolist()
        states = backbone.embed_text([read[row] for row in rows])
        for row, states_of_row in zip(rows, states.hidden, strict=True):
            hidden[row] = [part.float().cpu() for part in states_of_row.chunk(int(count))]
        for name, parts in others.items():
            if (value := getattr(states, name)) is not None:
                parts.extend(value.float().cpu())
        order += rows

    arrays = {"hidden": torch.stack([part for parts in hidden for part in parts]).numpy()}
    places = np.argsort(order)
    for name, values in others.items():
        if values:
            arrays[name] = torch.stack(values).numpy()[places]
    if counts.max() > 1:
        arrays["chunks"] = counts
    return arrays


def _states_of_sentences(backbone: Any, read: Sequence[str | Prompt]) -> dict[str, ndarray]:
    """Of a transformer's text encoders. Where a caption has as many states as tokens they are in
    chunks of `TOKENS`, and `tokens` (N,) says how many there are. States of half precision are
    kept so, bit for bit.
    """
    hidden: list[Tensor] = []
    pooled: list[Tensor] = []
    tokens: list[int] = []
    for start in range(0, len(read), TOGETHER):
        states = backbone.embed_text(list(read[start : start + TOGETHER]))
        if states.pooled is not None:
            pooled.extend(states.pooled.float().cpu())
        if states.mask is None:
            hidden.extend(states.hidden.cpu())
            continue
        for row, mask in zip(states.hidden.cpu(), states.mask.cpu(), strict=True):
            tokens.append(int(mask.sum()))
            filled = row.new_zeros(-(-tokens[-1] // TOKENS) * TOKENS, row.shape[1])
            filled[: tokens[-1]] = row[mask]
            hidden.extend(filled.split(TOKENS))
    arrays = {"hidden": narrow(torch.stack(hidden))}
    if pooled:
        arrays["pooled"] = torch.stack(pooled).numpy()
    if tokens:
        arrays["tokens"] = np.array(tokens, np.int64)
        arrays["chunks"] = -(-arrays["tokens"] // TOKENS)
    return arrays


def _most(tokenizer: Any) -> int:
    """Tokens that a probe is filled up to; some tokenizers name no limit."""
    return min(int(tokenizer.model_max_length), 1024)


def _holds_texts(rows: int) -> Callable[[Shard], bool]:
    """Whether a shard has states for so many captions."""

    def holds(shard: Shard) -> bool:
        hidden, counts = shard.arrays.get("hidden"), shard.arrays.get("chunks")
        if hidden is None:
            return False
        if counts is None:
            return len(hidden) == rows
        return len(counts) == rows and int(np.sum(counts[:])) == len(hidden)

    return holds
