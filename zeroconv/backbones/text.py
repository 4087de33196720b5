"""Text states of a backbone: prompts of any length, with weights and embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from zeroconv.backbones.protocol import TextStates, is_split
from zeroconv.errors import UserError
from zeroconv.prompts import Prompt, plain
from zeroconv.prompts.embeddings import Embedding
from zeroconv.prompts.encoding import Reader, joined, readers_of


@dataclass(frozen=True)
class TextOptions:
    """How prompts are read, beside the prompts.

    clip_skip: layers of the text encoders left out at the end, as diffusers counts them; A1111's
    "Clip skip" is one more. embeddings: textual inversions that prompts may name.
    """

    clip_skip: int | None = None
    embeddings: tuple[Embedding, ...] = ()


def embed_prompts(
    backbone: Any,
    prompts: Sequence[str | Prompt],
    prompts_2: Sequence[str | Prompt] | None = None,
    options: TextOptions | None = None,
    chunks: int = 1,
) -> TextStates:
    """Text states (N, k · L, D), k the chunks of the longest prompt and `chunks` at least.

    A str is read as it stands, a `Prompt` with its weights. Shorter ones are filled up with the
    empty chunk. prompts_2: for the second text encoder, of SDXL. No time ids. Raises UserError.
    """
    prompts = _prompts(prompts)
    seconds = prompts if prompts_2 is None else _prompts(prompts_2)
    readers = _readers(backbone, options)
    device = backbone.device
    encoded = [
        reader.encode(texts, device)
        for reader, texts in zip(readers, _each(readers, prompts, seconds), strict=True)
    ]

    length = readers[0].window.length
    longest = max(length * chunks, *(len(h) for one in encoded for h in one.hidden))
    hidden = []
    for reader, one in zip(readers, encoded, strict=True):
        short = any(len(h) < longest for h in one.hidden)
        empty = reader.encode([plain("")], device).hidden[0] if short else None
        hidden.append(joined(one.hidden, longest, empty))

    pooled = encoded[-1].pooled
    dtype = backbone.dtype
    return TextStates(
        (hidden[0] if len(hidden) == 1 else torch.cat(hidden, dim=-1)).to(dtype),
        None if pooled is None else pooled.to(dtype),
    )


def chunk_counts(
    backbone: Any,
    prompts: Sequence[str | Prompt],
    prompts_2: Sequence[str | Prompt] | None = None,
    options: TextOptions | None = None,
) -> list[int]:
    """How many chunks each prompt takes, in the text encoder that needs most."""
    if not getattr(backbone, "text_encoders", None) or not is_split(backbone):
        return [1] * len(prompts)  # transformers read a text in one piece
    prompts = _prompts(prompts)
    seconds = prompts if prompts_2 is None else _prompts(prompts_2)
    readers = _readers(backbone, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when they are embedded
        rows = [
            reader.rows(texts)
            for reader, texts in zip(readers, _each(readers, prompts, seconds), strict=True)
        ]
    return [max(map(len, counts)) for counts in zip(*rows, strict=True)]


def of_length(backbone: Any, states: TextStates, length: int) -> TextStates:
    """States of `length` tokens, filled up with the empty chunk. Raises UserError where chunks do
    not fit in.
    """
    missing = length - states.hidden.shape[1]
    if not missing:
        return states
    if missing > 0 and not is_split(backbone):
        return states.lengthened(length)
    empty = backbone.embed_text([""]).hidden.to(states.hidden)
    if missing < 0 or missing % empty.shape[1]:
        raise UserError(
            f"prompt and negative have {length} and {states.hidden.shape[1]} tokens, which differ "
            f"by no whole chunks of {empty.shape[1]}; give states of equal length."
        )
    more = empty.repeat(len(states), missing // empty.shape[1], 1)
    return replace(states, hidden=torch.cat([states.hidden, more], dim=1))


def _prompts(texts: Sequence[str | Prompt]) -> list[Prompt]:
    return [plain(text) if isinstance(text, str) else text for text in texts]


def _each(
    readers: Sequence[Reader], prompts: list[Prompt], seconds: list[Prompt]
) -> list[list[Prompt]]:
    """The prompts of each encoder."""
    return [seconds if number else prompts for number in range(len(readers))]


def _readers(backbone: Any, options: TextOptions | None) -> list[Reader]:
    options = options or TextOptions()
    return readers_of(
        backbone.tokenizers,
        backbone.text_encoders,
        options.embeddings,
        options.clip_skip,
        backbone.is_xl,
    )
