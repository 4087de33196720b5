"""Noisy latents and targets: what is predicted gives back the latents."""

from __future__ import annotations

import torch

from zeroconv.scratch.noise import Diffusion, Flow


def test_v_gives_back_the_latents() -> None:
    process = Diffusion.scaled_linear()
    z, noise = torch.randn(2, 3, 8, 4, 4)
    t = torch.tensor([0, 500, 999])
    noisy, v = process.noised(z, noise, t), process.target(z, noise, t)
    alpha = process.alphas_cumprod[t][:, None, None, None]

    assert torch.allclose(alpha.sqrt() * noisy - (1 - alpha).sqrt() * v, z, atol=1e-5)


def test_the_noise_schedule_is_that_of_the_embedded_base() -> None:
    from diffusers import DDIMScheduler

    from zeroconv.scratch.embedded import PLAYROOM

    scheduler = DDIMScheduler.from_config(DDIMScheduler.load_config(PLAYROOM / "scheduler"))
    ours = Diffusion.scaled_linear().alphas_cumprod
    assert torch.allclose(ours, scheduler.alphas_cumprod, atol=1e-6)


def test_a_velocity_gives_back_the_latents() -> None:
    z, noise = torch.randn(2, 3, 8, 4, 4)
    sigma = torch.tensor([0.0, 0.4, 1.0])
    noisy, velocity = Flow().noised(z, noise, sigma), Flow().target(z, noise, sigma)

    assert torch.allclose(noisy - sigma[:, None, None, None] * velocity, z, atol=1e-6)
    assert torch.equal(noisy[2], noise[2])
