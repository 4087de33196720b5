"""Captions as token rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Writer = Callable[[Sequence[str]], Tensor]  # captions → token rows (N, L) int64


def clip_writer(tokenizer: Any) -> Writer:
    """Token rows of the tokenizer's full length, as the pipelines make them: cut at its end,
    padded.
    """

    def write(captions: Sequence[str]) -> Tensor:
        asked = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return tokenizer(list(captions), max_length=tokenizer.model_max_length, **asked).input_ids

    return write
