"""Previews: a matrix in place of the decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from tests.helpers.tiny import tiny_backbone
from zeroconv import playroom
from zeroconv.backbones import load_backbone
from zeroconv.generation import generate
from zeroconv.generation.previews import SDXL, STABLE_DIFFUSION, WIDTHS, fitted, preview_of


@pytest.fixture
def backbone():
    return tiny_backbone()


def test_preview_fits_a_linear_decoder_exactly_and_once(backbone, monkeypatch) -> None:
    factors = 0.1 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    calls = []

    def decode(z: torch.Tensor) -> torch.Tensor:
        calls.append(len(z))
        rgb = torch.einsum("nchw,cr->nrhw", z, factors) + 0.5
        return rgb.repeat_interleave(8, 2).repeat_interleave(8, 3)

    monkeypatch.setattr(backbone, "decode_latents", decode)
    preview = preview_of(backbone)
    assert torch.allclose(preview.factors, factors, atol=1e-5)
    assert torch.allclose(preview.bias, torch.full((3,), 0.5), atol=1e-5)
    before = len(calls)
    assert preview_of(backbone) is preview and len(calls) == before


@pytest.mark.parametrize(("scale", "factors"), [(0.18215, STABLE_DIFFUSION), (0.13025, SDXL)])
def test_preview_of_published_autoencoders_decodes_nothing(
    backbone, monkeypatch, scale, factors
) -> None:
    monkeypatch.setattr(backbone, "decode_latents", lambda z: pytest.fail("decoded"))
    backbone.vae.register_to_config(block_out_channels=WIDTHS, scaling_factor=scale)
    assert torch.allclose(preview_of(backbone).factors, torch.tensor(factors) / 2)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_preview_takes_what_the_callback_gets(backbone, scheduler) -> None:
    preview, seen = fitted(backbone), []

    def hear(step: int, steps: int, latents: torch.Tensor) -> None:
        seen.append(preview(latents))

    generate(backbone, ["a", "b"], steps=3, scheduler=scheduler, cfg=1.0, callback=hear)
    assert [tuple(one.shape) for one in seen] == [(2, 3, 8, 8)] * 3
    assert all(one.min() >= 0 and one.max() <= 1 and one.std() > 0 for one in seen)


def test_preview_of_the_playroom_is_like_the_picture_made_small() -> None:
    backbone = load_backbone("playroom")
    pixels = np.stack([playroom.render(seed, 128).image for seed in range(4)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        latents = backbone.latents_from_moments(backbone.encode_image(images * 2 - 1), sample=False)
    small = avg_pool2d(images, backbone.latent_scale)
    shown = preview_of(backbone)(latents)
    both = torch.stack([shown.flatten(), small.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9 and (shown - small).abs().mean() < 0.06
