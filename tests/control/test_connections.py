from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from zeroconv.backbones import Connection
from zeroconv.control import ControlNet, LiteEncoder, make_connection


def test_zero_is_zero_and_gaussian_keeps_the_size_of_a_signal():
    zero = make_connection("zero", 320)
    assert zero.weight.shape == (320, 320, 1, 1)
    assert not zero.weight.any()
    assert not zero.bias.any()
    torch.manual_seed(0)
    gaussian = make_connection("gaussian", 320)
    assert not gaussian.bias.any()
    assert gaussian.weight.std().item() == pytest.approx(320**-0.5, rel=0.02)
    x = torch.randn(4, 320, 8, 8)
    assert gaussian(x).std().item() == pytest.approx(1, rel=0.1)


def test_gaussian_connections_disturb_the_frozen_model_from_the_start():
    backbone = tiny_backbone()
    control = ControlNet.from_backbone(backbone, connections="gaussian")
    assert all(residual.any() for residual in control(*inputs(backbone)))
    assert control.hint_encoder.conv_out.weight.any()


def test_lite_is_one_convolution_a_connection():
    places = [Connection("down.0", 16, 1), Connection("down.1", 16, 2), Connection("down.2", 32, 2)]
    lite = LiteEncoder([*places, Connection("mid", 32, 2)], {})
    assert [(c.in_channels, c.out_channels, c.stride) for c in lite.convs] == [
        (16, 16, (1, 1)),
        (16, 16, (2, 2)),
        (16, 32, (1, 1)),
        (32, 32, (1, 1)),
    ]


def test_lite_sees_the_hint_and_nothing_else():
    backbone = tiny_backbone()
    control = randomise_(ControlNet.from_backbone(backbone, connections="lite"))
    z, hint, t, text = inputs(backbone, size=32)
    other_z, _, other_t, _ = inputs(backbone, size=32, seed=8)
    reference = control(z, hint, t, text)
    assert torch.equal(control(other_z, hint, other_t, text[[1, 0]])[-1], reference[-1])
    # an embedding of unit size, as a trained hint encoder gives, is still heard at the middle
    embeddings = torch.randn(
        2, *control.embed_hint(hint).shape, generator=torch.Generator().manual_seed(0)
    )
    one, two = (control.forward_embedded(z, embedding, t, text) for embedding in embeddings)
    assert all((a - b).std() > 0.03 for a, b in zip(one, two, strict=True))
    full = ControlNet.from_backbone(backbone)
    assert (
        sum(p.numel() for p in control.copy.parameters())
        < sum(p.numel() for p in full.copy.parameters()) / 2
    )


def test_lite_learns_from_step_0_on():
    backbone = tiny_backbone()
    control = ControlNet.from_backbone(backbone, connections="lite")
    optimiser = torch.optim.SGD(control.parameters(), lr=0.1)
    z, hint, t, text = inputs(backbone)
    skips = backbone.encode(z, t, text)
    for _ in range(4):
        optimiser.zero_grad()
        residuals = control(z, hint, t, text)
        backbone.decode(
            [s + r for s, r in zip(skips, residuals, strict=True)], t, text
        ).square().mean().backward()
        optimiser.step()
    assert all(p.grad.any() for p in control.parameters())
