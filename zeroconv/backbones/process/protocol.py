"""What a process gives: noisy latents, targets, weights and timesteps."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor


class Process(Protocol):
    """Latents z and noise ε are (N, C, h, w), timesteps t (N,) in the unit of the model's input."""

    @property
    def prediction_type(self) -> str:
        """ "epsilon", "v_prediction" or "flow"."""

    @property
    def device(self) -> torch.device:
        """Where the schedule lies; timesteps must lie there too."""

    def to(self, device: torch.device | str) -> Self: ...

    def noised(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t, the noisy latents (N, C, h, w)."""

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model predicts of z and ε, (N, C, h, w)."""

    def clean(self, noisy: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The latents z that a model's output at z_t stands for, (N, C, h, w)."""

    def weights(self, t: Tensor, gamma: float) -> Tensor:
        """Min-SNR-γ weights (N,) of a squared error of the output (Hang et al. 2023).

        The method weighs a squared error of z by min(SNR, γ). An error of the output is an error of
        z times a factor that depends on what is predicted.
        """

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        device: torch.device | str,
        rule: str = "uniform",
        tokens: int | None = None,
    ) -> Tensor:
        """Timesteps (count,) of a training step by a rule of `TIMESTEPS`.

        tokens: positions that the model attends over in a picture; read where the schedule depends
        on the resolution.
        """

    def spread(self, count: int) -> Tensor:
        """Timesteps (count,) in the middles of `count` equal parts of the schedule, rising."""

    def draw_below(
        self, count: int, most: float, generator: torch.Generator, device: torch.device | str
    ) -> Tensor:
        """Timesteps (count,), uniform over those that `is_below` is true of."""

    def is_below(self, t: Tensor, most: float) -> Tensor:
        """(N,) bool: whether t is at most `most` thousandths of the schedule: t ≤ most of 1000
        steps of diffusion, σ ≤ most / 1000 of a flow.
        """
