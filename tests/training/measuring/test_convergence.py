"""The change point: found where it was put, not found where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from zeroconv.training.measuring.convergence import Measured, detect


def series(gains, error=0.001, loss=0.3, every=25):
    return [Measured(i * every, float(g), error, loss) for i, g in enumerate(gains)]


def jump(at: int, count: int = 40, slope: float = 0.004, noise: float = 0.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    return series([max(0, i - at) * slope + rng.normal(0, noise) for i in range(count)])


@pytest.mark.parametrize("at", [0, 1, 5, 20, 35])
def test_convergence_detects_a_clean_jump_where_it_is(at):
    onset = detect(jump(at))
    assert onset is not None and onset.step == at * 25
    assert onset.seen > onset.step and onset.confidence > 0.999


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_the_stated_error_is_no_jump(seed):
    assert detect(jump(40, count=40, noise=0.001, seed=seed)) is None


def test_noise_hardly_moves_the_step():
    steps = [detect(jump(12, noise=0.001, seed=seed)).step for seed in range(20)]
    assert all(abs(step - 300) <= 75 for step in steps)


def test_convergence_is_not_detected_too_early_or_from_a_single_outlier():
    assert detect([]) is None and detect(jump(3)[:5]) is None
    gains = [0.0] * 30
    gains[12] = 0.05
    assert detect(series(gains)) is None


def test_a_gain_too_small_to_be_seen_does_not_count():
    tiny = series([0.0] * 5 + [0.0003] * 20, error=0.00001)
    assert detect(tiny) is None
    assert detect(series([0.0] * 5 + [0.003] * 20, error=0.00001)) is not None


def test_a_dip_below_zero_and_its_return_are_no_jump():
    assert detect(series([0.0] * 5 + [-0.02] * 10 + [0.0] * 10)) is None


def test_a_gain_that_is_no_number_is_passed_over():
    gains = [0.0, float("nan"), 0.0, 0.01, 0.02, 0.03]
    assert detect(series(gains)).step == 50
