"""Noisy latents and targets: what is predicted gives back the latents."""

from __future__ import annotations

import torch

from zeroconv.scratch.noise import alphas_cumprod, diffused, flowed


def test_v_gives_back_the_latents() -> None:
    alphas = alphas_cumprod()
    z, noise = torch.randn(2, 3, 8, 4, 4)
    t = torch.tensor([0, 500, 999])
    noisy, v = diffused(z, noise, t, alphas)
    a, s = (x[t][:, None, None, None] for x in (alphas.sqrt(), (1 - alphas).sqrt()))

    assert torch.allclose(a * noisy - s * v, z, atol=1e-5)


def test_a_velocity_gives_back_the_latents() -> None:
    z, noise = torch.randn(2, 3, 8, 4, 4)
    sigma = torch.tensor([0.0, 0.4, 1.0])
    noisy, velocity = flowed(z, noise, sigma)

    assert torch.allclose(noisy - sigma[:, None, None, None] * velocity, z, atol=1e-6)
    assert torch.equal(noisy[2], noise[2])
