"""The autoencoder in tiles gives what it gives in one pass."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny import tiny_backbone
from zeroconv.backbones import load_backbone, tiling


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "TILE", 12)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("playroom")


@pytest.mark.parametrize("size", [(29, 21), (30, 8)])
def test_tiled_pictures_and_latents_are_those_of_one_pass(
    backbone, small_tiles: None, size: tuple[int, int]
) -> None:
    """Within 0.2 of 255, everywhere, seams included; sizes that tiles do not divide too."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 8 * size[0], 8 * size[1], generator=generator) * 2 - 1
    moments = backbone.encode_image(images)
    z = backbone.latents_from_moments(moments, sample=False)
    pictures = backbone.decode_latents(z)

    backbone.vae_tiling = True
    try:
        assert not tiling.is_one(backbone.vae, *size)
        assert (backbone.encode_image(images) - moments).abs().max() < 0.01
        assert (backbone.decode_latents(z) - pictures).abs().max() * 255 < 0.2
    finally:
        backbone.vae_tiling = False


def test_tiles_of_the_full_topology_with_random_weights(small_tiles: None) -> None:
    """A VAE with shortcuts at several levels, in which nothing is zero."""
    from tests.helpers.tiny import tiny_vae

    vae = tiny_vae(block_out_channels=(8, 16, 16, 24)).eval()
    z = torch.randn(1, 4, 30, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole_pass = vae.decode(z).sample
        tiled = tiling.decode(vae, z)
    assert (tiled - whole_pass).abs().max() < 2e-2 * whole_pass.abs().max()


def test_a_small_picture_is_one_tile() -> None:
    assert tiling.is_one(tiny_backbone().vae, 64, 80)
    assert not tiling.is_one(tiny_backbone().vae, 64, 81)


def test_memory_of_tiles_is_that_of_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pass computes at its highest grows with the picture alone."""
    from tests.helpers.tiny import tiny_vae
    from zeroconv.layers.live_bytes import LiveBytes

    monkeypatch.setattr(tiling, "TILE", 8)
    monkeypatch.setattr(tiling, "MARGIN", 4)
    vae, peaks = tiny_vae().eval(), []
    for side in (20, 40):
        z = torch.randn(1, 4, side, side)
        with torch.no_grad(), LiveBytes() as live:
            tiling.decode(vae, z)
        peaks.append(live.most)
    with torch.no_grad(), LiveBytes() as live:
        vae.decode(z)
    assert peaks[1] < 0.5 * live.most
    assert peaks[1] < 2 * peaks[0]  # four times the pixels
