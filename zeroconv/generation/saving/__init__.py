"""Approximate modes: work of one step that is used again in the next ones (`generate(fast=…)`)."""

from __future__ import annotations

from zeroconv.generation.saving.decoding import decoder_of
from zeroconv.generation.saving.predicting import predict
from zeroconv.generation.saving.settings import EXACT, Fast, parse_fast, presets
from zeroconv.generation.saving.state import Saving, saving_for

__all__ = [
    "EXACT",
    "Fast",
    "Saving",
    "decoder_of",
    "parse_fast",
    "predict",
    "presets",
    "saving_for",
]
