"""Measures by closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from zeroconv.evaluation.metrics import interval, paired_interval, psnr, rgb_to_lab, rmse, summarise


def test_interval_is_seeded_and_covers_a_known_mean():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    got = interval(values)
    assert got == interval(values)
    assert got["low"] < got["mean"] < got["high"]
    # the standard error is 1 / 20, so the interval is about 4 × 1 / 20 wide
    assert got["high"] - got["low"] == pytest.approx(0.2, rel=0.15) and abs(got["mean"] - 3) < 0.15
    assert interval([2.0, 2.0]) == {"mean": 2.0, "low": 2.0, "high": 2.0}
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_rmse_and_psnr_do_not_wrap_around():
    black, grey = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert rmse(black, grey) == rmse(grey, black) == 255
    assert psnr(black, grey) == pytest.approx(0.0) and psnr(grey, grey) == float("inf")
    assert psnr(np.full((4, 4), 100, np.uint8), np.full((4, 4), 110, np.uint8)) == pytest.approx(
        20 * np.log10(25.5)
    )


def test_lab_of_known_colours():
    assert rgb_to_lab(np.array([255, 255, 255])) == pytest.approx([100, 0, 0], abs=0.02)
    assert rgb_to_lab(np.array([0, 0, 0])) == pytest.approx([0, 0, 0], abs=1e-6)
    assert rgb_to_lab(np.array([255, 0, 0])) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)


def test_figures_of_many_pictures_by_hand():
    assert summarise([1.0, 3.0])["mean"] == 2
    # shares of sums, not means of shares: class 0: (1 + 3) / (2 + 4), class 1: (0 + 5) / (0 +
    # 5), class 2 never there
    stats = [np.array([[1, 0, 0], [2, 0, 0]]), np.array([[3, 5, 0], [4, 5, 0]])]
    assert summarise(stats, "ratio")["mean"] == pytest.approx((4 / 6 + 1) / 2)
    nothing = [np.zeros((2, 3))] * 3
    assert np.isnan(summarise(nothing, "ratio")["mean"])
    rows = [
        np.array([[0.9, 0, *[1] * 10], [-1, 1, *[0] * 10]]),
        np.array([[0.5, 0, *[0] * 10], [-1, 1, *[0] * 10]]),
    ]
    assert summarise(rows, "ap")["mean"] == pytest.approx(51 / 101)
    with pytest.raises(ValueError, match="at least one"):
        summarise([])
    with pytest.raises(ValueError, match="no kind"):
        summarise([1.0], "median")


def test_intervals_are_seeded_and_cover():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400).tolist()
    got = summarise(values)
    assert got == summarise(values) != summarise(values, seed=1)
    assert got["high"] - got["low"] == pytest.approx(0.2, rel=0.15)
    truth, misses = 0.6, 0
    for seed in range(100):  # a 95% interval misses about five times in a hundred
        hits = np.random.default_rng(seed).random((60, 5)) < truth
        stats = [np.array([[row.sum()], [5]], float) for row in hits]
        one = summarise(stats, "ratio", draws=300)
        misses += not one["low"] <= truth <= one["high"]
    assert 0 <= misses <= 12


def test_a_difference_of_pairs_is_sharper_than_the_two_apart():
    # some pictures are harder than others, for both alike
    hard = np.random.default_rng(0).normal(0, 1, 200)
    noise = np.random.default_rng(1).normal(0, 0.05, 200)
    difference = paired_interval((hard + 0.1).tolist(), (hard + noise).tolist())
    assert difference["low"] > 0.08 and difference["high"] < 0.12
    assert paired_interval([1.0, 2.0], [1.0, 2.0]) == {"mean": 0, "low": 0, "high": 0}
    with pytest.raises(ValueError, match="one length"):
        paired_interval([1.0], [1.0, 2.0])
