"""The figures of approximate modes."""

from __future__ import annotations

import pytest

from benchmarks.quality.fast import average, lost
from benchmarks.quality.fast_operations import Loop
from zeroconv.generation.saving import EXACT, presets


@pytest.mark.parametrize(
    ("metric", "exact", "made", "expected"),
    [("ms_ssim", 0.8, 0.6, 25.0), ("angle", 10.0, 11.0, 10.0), ("ms_ssim", 0.5, 0.5, 0.0)],
)
def test_fidelity_lost_is_positive_where_a_figure_is_worse(metric, exact, made, expected):
    figures = lost([exact] * 3, [made] * 3, metric)
    assert figures == pytest.approx({"mean": expected, "low": expected, "high": expected})


def test_fidelity_lost_is_averaged_over_conditions():
    losses = [{"mean": 1.0, "low": -2.0, "high": 4.0}, {"mean": 3.0, "low": -1.0, "high": 7.0}]
    assert average(losses) == pytest.approx((2.0, 2.5))  # hypot(3, 4) / 2


@pytest.mark.slow
def test_presets_save_the_operations_that_they_are_named_by():
    loop = Loop()
    # published sizes: UNet 803 and ControlNet 283 − 15 GFLOP, on both halves of guidance
    assert loop.count(EXACT, 1) == pytest.approx(2 * (803 + 268) * 1e9, rel=0.02)
    whole = loop.count(EXACT, 20)
    for name, fast in presets().items():
        assert whole / loop.count(fast, 20) >= float(name.removeprefix("x"))
