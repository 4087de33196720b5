"""Measures by closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from zeroconv.evaluation.metrics import interval, psnr, rgb_to_lab, rmse


def test_interval_is_seeded_and_covers_a_known_mean():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = interval(values)
    assert found == interval(values)
    assert found["low"] < found["mean"] < found["high"]
    # the standard error is 1 / 20, so the interval is about 4 × 1 / 20 wide
    assert found["high"] - found["low"] == pytest.approx(0.2, rel=0.15) and abs(found["mean"] - 3) < 0.15
    assert interval([2.0, 2.0]) == {"mean": 2.0, "low": 2.0, "high": 2.0}
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_rmse_and_psnr_do_not_wrap_around():
    black, grey = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert rmse(black, grey) == rmse(grey, black) == 255
    assert psnr(black, grey) == pytest.approx(0.0) and psnr(grey, grey) == float("inf")
    assert psnr(np.full((4, 4), 100, np.uint8), np.full((4, 4), 110, np.uint8)) == pytest.approx(20 * np.log10(25.5))


def test_lab_of_known_colours():
    assert rgb_to_lab(np.array([255, 255, 255])) == pytest.approx([100, 0, 0], abs=0.02)
    assert rgb_to_lab(np.array([0, 0, 0])) == pytest.approx([0, 0, 0], abs=1e-6)
    assert rgb_to_lab(np.array([255, 0, 0])) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)
