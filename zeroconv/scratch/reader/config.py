"""The settings of the reader's training."""

from __future__ import annotations

from dataclasses import dataclass

from zeroconv.evaluation.reader import WIDTH
from zeroconv.scratch.reader.data import FIRST


@dataclass(frozen=True)
class ReaderConfig:
    """The defaults are those of the shipped reader, which judges.

    width: channels of the first level, a multiple of 8. seed: of weights and batches. first: the
    number of the first scene of the training split.
    """

    width: int = WIDTH
    first: int = FIRST
    scenes: int = 6144
    steps: int = 1_000
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 20
    decoded: float = 0.5  # share of pictures that went through the VAE
    ema_decay: float = 0.99
    minutes: float | None = None
    seed: int = 0
