"""The training of the small decoder: its latents, that it goes on exactly, and what it writes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.scratch.tiny import make_shards
from zeroconv.backbones.loading.tiny_vae import build_tiny_vae
from zeroconv.errors import UserError
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.tiny import __main__ as command
from zeroconv.scratch.tiny import pool as pools
from zeroconv.scratch.tiny.export import export
from zeroconv.scratch.tiny.model import TinyConfig
from zeroconv.scratch.tiny.pool import Pool

CONFIG = TinyConfig(width=4, blocks=(1, 0, 0, 0), batch=2, pool=5)


def decode(latents: torch.Tensor) -> torch.Tensor:
    """Stands for the VAE: three channels, each 8 × 8 pixels even."""
    return functional.interpolate(latents[:, :3], scale_factor=8).clamp(-1, 1)


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "HELD_OUT", 3)
    monkeypatch.setattr(command, "decode", decode)
    return make_shards(tmp_path / "shards", "scenes-train-000", "stickers-train-000")


def test_pool_gives_functions_of_the_step_and_decodes_each_latent_once(shards) -> None:
    calls: list[int] = []

    def counted(latents: torch.Tensor) -> torch.Tensor:
        calls.append(len(latents))
        return decode(latents)

    pool, other = Pool(shards, CONFIG, counted), Pool(shards, CONFIG, decode)
    for step in (3, 0, 1, 2):
        latents, pictures = pool(step, 0.0)
        again = other(step, 9.0)
        assert torch.equal(latents, again[0]) and torch.equal(pictures, again[1])
        assert latents.shape == (2, 8, 16, 16) and pictures.shape == (2, 3, 128, 128)
        assert torch.allclose(pictures, decode(latents), atol=1e-3)
    assert len(calls) == len(pool.known) <= CONFIG.pool
    assert set(pool.numbers(0)).isdisjoint(pool.numbers(1))
    assert pool.numbers(0) + pool.numbers(1) != pool.numbers(2) + pool.numbers(3)


def test_pool_never_trains_on_held_out_latents(shards) -> None:
    pool = Pool(shards, CONFIG, decode)
    held_out = pool.held_out()
    assert held_out.shape == (6, 8, 16, 16)
    means = torch.stack([
        torch.from_numpy(part[0][row][:8].copy()).float()
        for part in pool.moments.values() for row in range(3)
    ])  # fmt: skip
    assert (held_out - means).abs().mean() < 0.1
    for number in range(60):
        z = pool.latent(number)
        assert float((means - z).square().mean((1, 2, 3)).min()) > 0.5


def test_pool_refuses_what_has_too_few(tmp_path, shards, monkeypatch) -> None:
    with pytest.raises(UserError, match="No shards"):
        Pool(tmp_path, CONFIG, decode)
    monkeypatch.setattr(pools, "HELD_OUT", 8)
    with pytest.raises(UserError, match="8 scenes or fewer"):
        Pool(shards, CONFIG, decode)


def test_training_of_the_small_decoder_goes_on_exactly_and_exports(tmp_path, shards) -> None:
    budgets = [Budget(1e-2, steps=n, warmup=1) for n in (4, 8)]
    straight = command.train(tmp_path / "one", shards, CONFIG, budgets[1])

    def half(step: int, seconds: float) -> bool:
        return step >= 4

    stopped = Budget(1e-2, steps=8, warmup=1)
    object.__setattr__(stopped, "over", half)
    command.train(tmp_path / "two", shards, CONFIG, stopped)
    resumed = command.train(tmp_path / "two", shards, CONFIG, budgets[1])
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)

    export(straight, tmp_path / "folder")
    tiny, z = build_tiny_vae(tmp_path / "folder"), torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        made, expected = tiny.float().decode(z).sample, straight.model(z)
    assert torch.allclose(made, expected, atol=1e-2) and made.shape == (1, 3, 32, 32)
    assert build_tiny_vae(tmp_path / "folder").dtype == torch.float16
