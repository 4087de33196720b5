"""Timesteps of the base's training, drawn with the density of min-SNR-γ's weights.

The weight of a timestep is min-SNR-γ's for v (Hang et al. 2023), with the signal-to-noise ratio
floored as for schedules that end in noise: min(SNR + 1, γ) / (SNR + 1). It is 1 wherever layout is
decided and falls where a picture is nearly clean. Timesteps are drawn with that density instead of
being weighted: the same expected gradient, and no arithmetic is spent on what would be multiplied
by a small number.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA = 5.0


def density(alphas: Tensor, gamma: float = GAMMA) -> Tensor:
    """Share of each timestep among those drawn, (1000,), summing to 1."""
    ratio = 1 / (1 - alphas.double())  # SNR + 1
    weight = ratio.clamp(max=gamma) / ratio

    return weight / weight.sum()


def draw_timesteps(count: int, chances: Tensor, generator: torch.Generator) -> Tensor:
    """(count,) int64 from `chances`, one from each of `count` equal shares of them, in random
    order.

    Stratified, so the mean loss of a batch does not vary with how noisy its pictures happen to be.
    """
    device = chances.device
    shares = torch.arange(count, device=device, dtype=torch.float64)
    shifts = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    drawn = torch.searchsorted(torch.cumsum(chances, 0), (shares + shifts) / count).clamp(
        max=len(chances) - 1
    )

    return drawn[torch.randperm(count, generator=generator, device=device)]
