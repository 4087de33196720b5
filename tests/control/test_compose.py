"""Scales over time, space, pictures and connections: pure functions, then whole pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet, compose
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.sampling import Guide


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def net(backbone):
    return randomise_(ControlNet.from_backbone(backbone, condition="canny"), 0.2)


@pytest.fixture(scope="module")
def hint():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_masks_are_means_over_cells(backbone):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :36] = 1  # four and a half of eight latents wide
    small = compose.masks_at(mask, backbone.connections, (8, 8))
    assert [m.shape[-1] for m in small] == [8 // c.scale for c in backbone.connections]
    assert small[0][0, 0, 0].tolist() == [1, 1, 1, 1, 0.5, 0, 0, 0]


def test_residuals_are_scaled(backbone):
    residuals = [torch.ones(2, 3, 4, 4), torch.tensor(0.0)]
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0] = 1
    scaled = compose.scaled(residuals, [2.0, 5.0], 0.5, torch.tensor([1.0, 3.0]), [mask, mask])
    assert scaled[0][:, 0, 0].tolist() == [[1, 0, 0, 0], [3, 0, 0, 0]] and scaled[1] == 0
    # both halves of guidance: the pictures' weights come twice
    twice = compose.scaled([torch.ones(4, 1, 1, 1)], [1.0], pictures=torch.tensor([1.0, 3.0]))
    assert twice[0].flatten().tolist() == [1, 3, 1, 3]


def pictures(backbone, net, hint, **options):
    chosen = {"steps": 3, "seed": 5, "guidance": "both", "output": "tensor"} | options.pop(
        "run", {}
    )
    return torch.stack(generate(backbone, ["a", "b"], [Control(net, hint, **options)], **chosen))


def test_a_scale_a_picture_is_that_scale_alone(backbone, net, hint):
    both = pictures(backbone, net, hint, scale=[0.3, 1.0])
    assert torch.allclose(both[0], pictures(backbone, net, hint, scale=0.3)[0], atol=1e-5)
    assert torch.allclose(both[1], pictures(backbone, net, hint, scale=1.0)[1], atol=1e-5)
    plain = torch.stack(generate(backbone, ["a", "b"], steps=3, seed=5, output="tensor"))
    assert torch.equal(pictures(backbone, net, hint, scale=[0.0, 0.0]), plain)
    with pytest.raises(UserError, match="3 scales"):
        pictures(backbone, net, hint, scale=[1, 2, 3])


def test_a_mask_everywhere_is_none_and_nowhere_is_no_control(backbone, net, hint):
    full = pictures(backbone, net, hint)
    assert torch.allclose(
        pictures(backbone, net, hint, region=Image.new("L", (9, 9), 255)), full, atol=1e-5
    )
    plain = torch.stack(generate(backbone, ["a", "b"], steps=3, seed=5, output="tensor"))
    assert torch.allclose(
        pictures(backbone, net, hint, region=torch.zeros(64, 64)), plain, atol=1e-5
    )
    assert not torch.allclose(
        pictures(backbone, net, hint, region=torch.full((64, 64), 0.5)), full, atol=1e-3
    )
    with pytest.raises(UserError, match="from 0 to 1"):
        pictures(backbone, net, hint, region=torch.full((64, 64), 2.0))


def test_two_controls_add_up_in_any_order(backbone, net, hint):
    other = randomise_(ControlNet.from_backbone(backbone, condition="depth"), 0.2, seed=11)
    options = {"steps": 2, "seed": 1, "guidance": "both", "output": "tensor"}
    a, b = Control(net, hint), Control(other, hint, scale=0.5)
    one, two = (generate(backbone, "x", order, **options)[0] for order in ([a, b], [b, a]))
    assert torch.allclose(one, two, atol=1e-5)
    assert not torch.allclose(one, generate(backbone, "x", [a], **options)[0], atol=1e-3)
    # the same twice at half weight is once at full weight
    half = [Control(net, hint, scale=0.5)] * 2
    assert torch.allclose(
        generate(backbone, "x", half, **options)[0],
        generate(backbone, "x", [a], **options)[0],
        atol=1e-4,
    )


def test_modes_and_halves_do_what_the_guidances_do(backbone, net, hint):
    balanced = pictures(backbone, net, hint, mode="balanced", run={"guidance": "cond"})
    assert torch.equal(balanced, pictures(backbone, net, hint))
    guess = pictures(backbone, net, hint, run={"guidance": "guess"})
    assert torch.equal(pictures(backbone, net, hint, mode="control"), guess)
    cond = pictures(backbone, net, hint, run={"guidance": "cond"})
    assert torch.equal(pictures(backbone, net, hint, conditional_only=True), cond)
    assert not torch.equal(pictures(backbone, net, hint, mode="prompt"), guess)


def test_a_curve_at_zero_costs_nothing(backbone, net, hint, monkeypatch):
    calls = []
    original = ControlNet.forward_embedded
    monkeypatch.setattr(
        ControlNet, "forward_embedded", lambda self, *a: (calls.append(1), original(self, *a))[1]
    )
    pictures(backbone, net, hint, curve=[(0.0, 1.0), (0.5, 0.0), (1.0, 0.0)], run={"steps": 5})
    assert len(calls) == 2  # of five steps, at fractions 0, 1/4, 1/2, 3/4, 1
    guide = Guide(net, None, [1.0], 0, 1, True, "linear_down")
    assert [guide.factor(i, 5) for i in range(5)] == [1, 0.75, 0.5, 0.25, 0] and not guide.acts(
        4, 5
    )
