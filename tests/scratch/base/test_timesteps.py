"""Timesteps of the diffusion loss: the density asked for, one from each stratum."""

from __future__ import annotations

import pytest
import torch

from zeroconv.backbones.process import Diffusion
from zeroconv.scratch.base.timesteps import density, draw_timesteps


def test_the_density_is_flat_at_high_noise_and_min_snr_below() -> None:
    alphas = Diffusion.scaled_linear("v_prediction", torch.float64).alphas_cumprod.double()
    chances = density(alphas)
    snr = alphas / (1 - alphas)
    flat = chances[-1]

    assert chances.sum() == pytest.approx(1.0)
    assert torch.allclose(chances[snr + 1 < 5], flat)
    clean = snr + 1 > 5
    assert torch.allclose(chances[clean] / flat, 5 / (snr[clean] + 1))


def test_timesteps_of_a_batch_come_one_from_each_share() -> None:
    chances = density(Diffusion.scaled_linear("v_prediction", torch.float64).alphas_cumprod)
    t = draw_timesteps(64, chances, torch.Generator().manual_seed(1))
    shares = torch.cumsum(chances, 0)[t.sort().values] * 64

    assert not torch.equal(t, t.sort().values)
    upper = torch.arange(64) + 1
    assert ((shares > upper - 1) & (shares < upper + 1.2)).all()
