"""Noisy latents and training targets: discrete diffusion and flow matching."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor


class Diffusion:
    """z_t = √ᾱ_t z + √(1 − ᾱ_t) ε, t an integer (Ho et al. 2020); the target is v = √ᾱ ε − √(1−ᾱ) z
    (Salimans & Ho 2022).
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod = alphas_cumprod

    @classmethod
    def scaled_linear(cls) -> Self:
        """Stable Diffusion's schedule: 1000 steps, √β linear from √0.00085 to √0.012."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2

        return cls(torch.cumprod(1 - betas, dim=0).float())

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.alphas_cumprod.to(device))

    def noised(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z, noise (N, C, h, w), t (N,) → z_t."""
        signal, scatter = self._levels(t)

        return signal * z + scatter * noise

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, scatter = self._levels(t)

        return signal * noise - scatter * z

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod[t][:, None, None, None]

        return alpha.sqrt(), (1 - alpha).sqrt()


class Flow:
    """z_σ = (1 − σ) z + σ ε, σ in [0, 1]; the target is ε − z (Lipman et al. 2023)."""

    def noised(self, z: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """z, noise (N, C, h, w), sigma (N,) → z_σ."""
        s = sigma[:, None, None, None]

        return (1 - s) * z + s * noise

    def target(self, z: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise - z
