"""Baselines in `generate`: the hint reaches the picture, in one half or both; what needs residuals
is refused.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.baselines.test_baselines import KINDS, shake_, small
from tests.generation.test_pipeline import hint, pixels
from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_answers_to_the_hint(backbone, kind):
    baseline = small(kind, backbone, condition="canny")
    # five layers in a row, each with small weights, give next to nothing
    shake_(baseline, scale=0.3 if kind == "lllite" else 0.05)

    def make(h, guidance):
        return pixels(
            generate(
                backbone,
                ["a", "b"],
                [Control(baseline, hint(h))],
                steps=2,
                cfg=3.0,
                guidance=guidance,
            )
        )

    cond, both = make(0, "cond"), make(0, "both")
    assert np.abs(cond - make(1, "cond")).mean() > 0.05
    assert np.abs(both - make(1, "both")).mean() > 0.05
    assert np.abs(cond - both).mean() > 0.05
    assert np.array_equal(cond, make(0, "cond"))


@pytest.mark.parametrize("guidance", ["both", "cond"])
def test_a_new_one_changes_nothing(backbone, guidance):
    options = {"steps": 3, "guidance": guidance, "output": "tensor"}
    without = generate(backbone, ["one", "two"], **options)
    for kind in ("lora", "side", "controlnet_xs"):
        with_it = generate(
            backbone, ["one", "two"], [Control(small(kind, backbone), hint())], **options
        )
        assert (without[0] - with_it[0]).abs().max() < 1e-5


def test_control_lora_is_guided_as_the_controlnet_it_equals(backbone):
    """Its low-rank updates merged into the copy of a ControlNet: the same pictures by the other
    way.
    """
    baseline = small("control_lora", backbone, condition="canny")
    shake_(baseline)
    control = ControlNet.from_backbone(backbone, hint_widths=(4, 8, 8, 8), condition="canny")
    control.load_state_dict(merged(baseline._net))
    for guidance in ("both", "cond"):
        options = {"steps": 2, "cfg": 3.0, "guidance": guidance, "output": "tensor"}
        pictures = [
            generate(backbone, "a", [Control(net, hint())], **options)[0]
            for net in (baseline, control)
        ]
        assert (pictures[0] - pictures[1]).abs().max() < 1e-4


def merged(net) -> dict[str, torch.Tensor]:
    """W + B A under the names of a network without updates; convolutions multiply as matrices of
    their flat filters.
    """
    state, out = net.state_dict(), {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        stem = name.partition(".base_layer.")[0]
        if name.endswith(".base_layer.weight"):
            a, b = (state[f"{stem}.lora_{x}.default.weight"] for x in "AB")
            value = value + (b.flatten(1) @ a.flatten(1)).reshape(value.shape)
        out[name.replace(".base_layer.", ".")] = value
    return out


def test_a_window_ends(backbone):
    """Outside its window the frozen model is alone: a window that holds no step changes nothing."""
    baseline = small("side", backbone)
    shake_(baseline)
    options = {"steps": 2, "guidance": "cond", "output": "tensor"}
    always, early, never, without = (
        generate(backbone, "a", controls, **options)[0]
        for controls in (
            [Control(baseline, hint())],
            [Control(baseline, hint(), end=0.5)],
            [Control(baseline, hint(), start=0.1, end=0.4)],
            [],
        )
    )
    # the halves of guidance pass the UNet apart or together, which differs by rounding
    torch.testing.assert_close(never, without, rtol=0, atol=2e-5)
    assert not torch.allclose(early, always, atol=1e-4)
    assert not torch.allclose(early, without, atol=1e-4)


def test_conditional_only_leaves_the_other_half_alone(backbone):
    baseline = small("side", backbone)
    shake_(baseline)
    options = {"steps": 2, "output": "tensor"}
    asked = generate(
        backbone,
        "a",
        [Control(baseline, hint(), conditional_only=True)],
        guidance="both",
        **options,
    )
    assert torch.equal(
        asked[0],
        generate(backbone, "a", [Control(baseline, hint())], guidance="cond", **options)[0],
    )


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({}, {"guidance": "resolution"}, "guidance 'resolution' scales residuals"),
        ({}, {"guidance": "guess"}, "guidance 'guess' scales residuals"),
        ({"scale": 0.5}, {"guidance": "cond"}, "scale is about residuals"),
        ({"curve": "linear_down"}, {"guidance": "cond"}, "curve is about residuals"),
        ({"region": torch.ones(64, 64)}, {"guidance": "cond"}, "region is about residuals"),
        ({"mode": "prompt"}, {"guidance": "cond"}, "mode is about residuals"),
        (
            {},
            {"guidance": "cond", "connection_scales": [1.0] * 13},
            "connection_scales is about residuals",
        ),
    ],
)
def test_what_needs_residuals_is_refused(backbone, changes, options, says):
    baseline = small("side", backbone)
    with pytest.raises(UserError, match=says):
        generate(backbone, "a", [Control(baseline, hint(), **changes)], steps=1, **options)


def test_beside_another_control_it_is_refused(backbone):
    control = randomise_(ControlNet.from_backbone(backbone))
    with pytest.raises(UserError, match="give it alone"):
        generate(
            backbone,
            "a",
            [Control(control, hint()), Control(small("side", backbone), hint())],
            guidance="cond",
        )
