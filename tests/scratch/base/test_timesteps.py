"""Timesteps of the diffusion loss: the density asked for, one from each stratum."""

from __future__ import annotations

import pytest
import torch

from zeroconv.scratch.diffusion import alphas_cumprod, density, draw_timesteps, noised


def test_the_density_is_flat_at_high_noise_and_min_snr_below():
    alphas = alphas_cumprod().double()
    chances = density(alphas)
    snr = alphas / (1 - alphas)
    flat = chances[-1]

    assert chances.sum() == pytest.approx(1.0)
    assert torch.allclose(chances[snr + 1 < 5], flat)
    clean = snr + 1 > 5
    assert torch.allclose(chances[clean] / flat, 5 / (snr[clean] + 1))


def test_timesteps_of_a_batch_come_one_from_each_share():
    chances = density(alphas_cumprod())
    t = draw_timesteps(64, chances, torch.Generator().manual_seed(1))
    places = torch.cumsum(chances, 0)[t.sort().values] * 64

    assert not torch.equal(t, t.sort().values)
    upper = torch.arange(64) + 1
    assert ((places > upper - 1) & (places < upper + 1.2)).all()


def test_v_gives_back_the_latents():
    alphas = alphas_cumprod()
    z, noise = torch.randn(2, 3, 8, 4, 4)
    t = torch.tensor([0, 500, 999])
    noisy, v = noised(z, noise, t, alphas)
    a, s = (x[t][:, None, None, None] for x in (alphas.sqrt(), (1 - alphas).sqrt()))

    assert torch.allclose(a * noisy - s * v, z, atol=1e-5)
