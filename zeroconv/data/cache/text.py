"""Text states of captions, computed once: one row a different caption."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zeroconv.data.cache import waiting
from zeroconv.data.cache.chunks import chunks
from zeroconv.data.cache.examples import Captions, TextTable
from zeroconv.data.cache.kept import holds, just_written, kept
from zeroconv.data.cache.keys import weights_key
from zeroconv.data.cache.settings import FORMAT, SHARD
from zeroconv.data.storage.shards import Shard, Store, content_key, default_root


def cache_text(
    backbone: Any,
    texts: Iterable[Sequence[str]],
    root: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    rank: int = 0,
    world: int = 1,
) -> TextTable:
    """States of the empty prompt (row 0) and of every different caption; of `world` processes each
    makes its share.
    """
    unique = list(dict.fromkeys(["", *(caption for variants in texts for caption in variants)]))
    store, encoder = Store(root or default_root(), "text"), text_key(backbone)
    began = time.monotonic()
    parts = list(chunks(unique, SHARD))
    keys = [content_key(FORMAT, encoder, part) for part in parts]

    def made(number: int) -> Shard:
        shard = kept(store, keys[number], holds("hidden", parts[number]))

        if shard is None:
            states = backbone.embed_text(parts[number])
            tensors = {
                "hidden": states.hidden,
                "pooled": states.pooled,
                "time_ids": states.time_ids,
            }
            arrays = {
                name: part.float().cpu().numpy()
                for name, part in tensors.items()
                if part is not None
            }
            store.write(keys[number], arrays)
            shard = just_written(store, keys[number])

            if progress is not None and time.monotonic() - began > 2:
                progress("captions", sum(map(len, parts[: number + 1])), len(unique))
        return shard

    if world > 1:
        for number in range(rank, len(parts), world):
            made(number)
        waiting.wait(keys, store.has, patience=30)
    return TextTable([made(number) for number in range(len(parts))], Captions.of(unique))


def text_key(backbone: Any) -> str:
    """Names the text encoders by their weights, and the tokenizers by what they make of a
    sentence.
    """
    probe = "A small red ball, 2 cubes & a person's hat on the left; über-bright sky."
    tokens = [
        list(map(int, t(probe, padding="max_length", truncation=True).input_ids))
        for t in backbone.tokenizers
    ]
    return content_key(weights_key(backbone.text_encoders), tokens, backbone.default_size)
