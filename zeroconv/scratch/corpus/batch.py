"""A batch, and how it is put together: a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

KINDS = ("scenes", "stickers")


@dataclass(frozen=True)
class Batch:
    """Latents and the prompts of a step; the last prompt is the empty one, shared by all rows
    without a caption.
    """

    latents: Tensor  # (B, C, h, w) float32, a fresh sample of each posterior
    tokens: tuple[Tensor, ...]  # one (P, L) int64 a writer
    prompt: Tensor  # (B,) int64: which of the P prompts a picture has


@dataclass(frozen=True)
class Mixture:
    """How a batch is put together."""

    batch: int = 128
    stickers: float = 0.35  # share of the pictures
    empty: float = 0.10  # share of the prompts, rounded to whole rows
    seed: int = 0

    @property
    def captioned(self) -> int:
        """Rows with a caption; always the same number, so that programs are compiled once."""
        return self.batch - round(self.empty * self.batch)


def generator_of(seed: int, what: int, step: int, device: str = "cpu") -> torch.Generator:
    """Random numbers for one purpose of one step."""
    number = int(np.random.default_rng([seed, what, step]).integers(2**62))

    return torch.Generator(device).manual_seed(number)
