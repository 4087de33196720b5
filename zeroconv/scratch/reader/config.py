"""The settings of the reader's training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReaderConfig:
    """The defaults are the shipped reader's."""

    scenes: int = 6144
    steps: int = 1_000
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 20
    decoded: float = 0.5  # share of pictures that went through the VAE
    ema_decay: float = 0.99
    minutes: float | None = None
    seed: int = 0
