from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.tiny import randomise_
from zeroconv.control import PaperHintEncoder, ReleasedHintEncoder
from zeroconv.errors import UserError


def shapes(encoder: nn.Module) -> list[tuple[int, int, int, int]]:
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    return [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs]


def test_released_is_the_published_one():
    encoder = ReleasedHintEncoder(320)
    assert shapes(encoder) == [
        (3, 16, 3, 1),
        (16, 16, 3, 1),
        (16, 32, 3, 2),
        (32, 32, 3, 1),
        (32, 96, 3, 2),
        (96, 96, 3, 1),
        (96, 256, 3, 2),
        (256, 320, 3, 1),
    ]
    assert sum(p.numel() for p in encoder.parameters()) == 1_086_480
    assert encoder(torch.rand(1, 3, 64, 64)).shape == (1, 320, 8, 8)
    assert not encoder(torch.rand(1, 3, 64, 64)).any()


def test_released_equals_diffusers():
    from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding

    ours = randomise_(ReleasedHintEncoder(20))
    theirs = ControlNetConditioningEmbedding(20)
    theirs.load_state_dict(ours.state_dict())
    hint = torch.rand(2, 3, 40, 64)
    assert torch.equal(ours(hint), theirs(hint))
    assert ours(hint).any()


def test_the_hint_is_heard_from_the_first_step_on():
    """Lines on black against the same lines elsewhere, as the last convolution sees them."""
    torch.manual_seed(0)
    lines = torch.zeros(1, 3, 64, 64)
    lines[..., ::16] = 1
    heard = {}
    for init in ("contrast", "torch"):
        encoder = ReleasedHintEncoder(16)
        if init == "contrast":
            encoder.keep_contrast_()
        encoder.conv_out = nn.Identity()
        heard[init] = (encoder(lines) - encoder(lines.roll(5, -1))).std().item()
    assert heard["contrast"] > 0.1
    assert heard["torch"] < 1e-3
    assert not ReleasedHintEncoder(16).conv_out.weight.any()


def test_paper_is_the_texts():
    encoder = PaperHintEncoder(320)
    assert shapes(encoder) == [
        (3, 16, 4, 2),
        (16, 32, 4, 2),
        (32, 64, 4, 2),
        (64, 128, 4, 1),
        (128, 320, 1, 1),
    ]
    assert encoder(torch.rand(1, 3, 64, 48)).shape == (1, 320, 8, 6)
    assert not encoder(torch.rand(1, 3, 64, 64)).any()
    assert randomise_(encoder)(torch.rand(1, 3, 64, 64)).any()
    weight = encoder.blocks[2].weight
    assert weight.std().item() == pytest.approx((2 / (32 * 16)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("kind", [ReleasedHintEncoder, PaperHintEncoder])
@pytest.mark.parametrize("scale", [4, 8, 16])
def test_the_embedding_has_the_latents_size(kind, scale):
    hint = torch.rand(1, 3, 6 * scale, 4 * scale)
    assert kind(8, latent_scale=scale)(hint).shape == (1, 8, 6, 4)


def test_a_size_that_is_no_power_of_two_is_refused():
    with pytest.raises(UserError, match="power of 2"):
        ReleasedHintEncoder(8, latent_scale=6)
    with pytest.raises(UserError, match="at least 3 widths"):
        PaperHintEncoder(8, widths=(16, 32))
