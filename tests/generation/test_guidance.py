"""The four ways to place control, against the table of the paper and of the released code."""

from __future__ import annotations

import pytest
import torch

from zeroconv.backbones import Connection
from zeroconv.errors import UserError
from zeroconv.generation import MODES, RULES, combine, connection_scales, controls_uncond, guidance

SD = tuple(
    Connection(f"down.{i}", 320, scale)
    for i, scale in enumerate((1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8))
) + (Connection("mid", 1280, 8),)


def test_resolution_scales_are_64_over_the_blocks_size():
    sizes = [64 // connection.scale for connection in SD]
    assert connection_scales("resolution", SD) == [64 / size for size in sizes]


def test_guess_scales_are_those_of_the_released_code():
    scales = connection_scales("guess", SD)
    assert scales == [0.825 ** (12 - i) for i in range(13)]
    logspace = torch.logspace(-1, 0, 13).tolist()  # diffusers' form of the same
    assert all(abs(a / b - 1) < 0.006 for a, b in zip(scales, logspace, strict=True))


def test_plain_scales_and_placement():
    assert connection_scales("both", SD) == connection_scales("cond", SD) == [1.0] * 13
    assert [mode for mode in MODES if controls_uncond(mode)] == ["both"] and set(MODES) < set(RULES)


def test_combine_is_linear_in_the_scale():
    uncond, cond = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(combine(uncond, cond, 0.0), uncond)
    assert torch.allclose(combine(uncond, cond, 1.0), cond)
    assert torch.allclose(combine(uncond, cond, 7.5), uncond + 7.5 * (cond - uncond))


def test_unknown_control_mode_is_refused():
    with pytest.raises(UserError, match="resolution"):
        connection_scales("strong", SD)


def test_curves_by_hand():
    assert [guidance.factor_at("linear_down", f) for f in (0, 0.25, 1)] == [1, 0.75, 0]
    assert [guidance.factor_at("linear_up", f) for f in (0, 0.25, 1)] == [0, 0.25, 1]
    assert (
        guidance.factor_at("cosine_down", 0.5)
        == pytest.approx(0.5)
        == guidance.factor_at("cosine_up", 0.5)
    )
    points = [(0.2, 1.0), (0.6, 0.0), (0.8, 2.0)]
    assert [guidance.factor_at(points, f) for f in (0, 0.2, 0.4, 0.7, 1)] == pytest.approx(
        [1, 1, 0.5, 1, 2]
    )
    for bad in ("wavy", [(0.5, 1), (0.1, 1)], [(0, float("nan"))], [(0, 1), (2, 1)], []):
        with pytest.raises(UserError, match="curve"):
            guidance.check_curve(bad)


def test_a1111s_modes():
    assert guidance.CONTROL_MODES == ("balanced", "prompt", "control")
    assert connection_scales("balanced", SD) == [1.0] * 13
    assert (
        connection_scales("prompt", SD)
        == connection_scales("control", SD)
        == connection_scales("guess", SD)
    )
    assert [mode for mode in guidance.CONTROL_MODES if controls_uncond(mode)] == [
        "balanced",
        "prompt",
    ]
    with pytest.raises(UserError, match="balanced"):
        guidance.check_control_mode("mine")


def test_scales_of_a_control_come_before_those_for_all_and_those_before_the_mode_s():
    given, common = [0.5] * 13, [2.0] * 13
    assert guidance.chosen_scales(given, common, "prompt", "both", SD) == given
    assert guidance.chosen_scales("resolution", common, None, "both", SD) == connection_scales(
        "resolution", SD
    )
    assert guidance.chosen_scales(None, common, "prompt", "both", SD) == common
    assert guidance.chosen_scales(None, None, "prompt", "both", SD) == connection_scales(
        "guess", SD
    )
    assert guidance.chosen_scales(None, None, None, "guess", SD) == connection_scales("guess", SD)
    with pytest.raises(UserError, match="12 connection_scales were given, but there are 13"):
        guidance.chosen_scales(given[:12], None, None, "both", SD)
