"""Noisy latents and training targets: discrete diffusion and flow matching."""

from __future__ import annotations

import torch
from torch import Tensor


def alphas_cumprod() -> Tensor:
    """Stable Diffusion's noise schedule: 1000 steps, √beta linear from √0.00085 to √0.012; (1000,)
    float32.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2

    return torch.cumprod(1 - betas, dim=0).float()


def diffused(z: Tensor, noise: Tensor, t: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (N, C, h, w), t (N,) → √ᾱ·z + √(1−ᾱ)·ε and the target v = √ᾱ·ε − √(1−ᾱ)·z (Salimans
    & Ho 2022).
    """
    signal = alphas[t].sqrt()[:, None, None, None]
    scatter = (1 - alphas[t]).sqrt()[:, None, None, None]

    return signal * z + scatter * noise, signal * noise - scatter * z


def flowed(z: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (N, C, h, w), sigma (N,) in [0, 1] → (1 − σ)·z + σ·ε and the target ε − z (Lipman et
    al. 2023).
    """
    s = sigma[:, None, None, None]

    return (1 - s) * z + s * noise, noise - z
