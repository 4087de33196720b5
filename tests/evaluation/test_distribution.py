"""Distances of feature sets by known Gaussians, and against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zeroconv.evaluation.distribution import (
    bootstrap,
    clean_resize,
    diversity,
    frechet_distance,
    kernel_distance,
)


def gaussian(mean: np.ndarray, covariance: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Samples whose mean and (unbiased) covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    root = np.linalg.cholesky(np.cov(x, rowvar=False))
    return x @ np.linalg.inv(root).T @ np.linalg.cholesky(covariance).T + mean


def test_the_frechet_distance_of_known_gaussians():
    zero, one = np.zeros(3), np.diag([1.0, 4.0, 9.0])
    a = gaussian(zero, one, 50)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, gaussian(np.array([1.0, 2.0, 2.0]), one, 80, 1)) == pytest.approx(9)
    # commuting covariances: Σ (σa − σb)²
    assert frechet_distance(a, gaussian(zero, np.diag([4.0, 4.0, 1.0]), 60, 2)) == pytest.approx(
        1 + 0 + 4
    )
    b = gaussian(zero, np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 3.0]]), 60, 3)
    import scipy.linalg

    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real)
    assert (
        frechet_distance(a, b) == pytest.approx(expected) == pytest.approx(frechet_distance(b, a))
    )


def test_the_frechet_distance_with_fewer_samples_than_dimensions():
    a, b = np.random.default_rng(0).normal(size=(2, 20, 64))
    assert np.isfinite(frechet_distance(a, b)) and frechet_distance(a, a) == pytest.approx(
        0, abs=1e-6
    )


def test_the_kernel_distance_is_unbiased_and_is_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 8)), rng.normal(0.5, 1, size=(40, 8))
    theirs = poly_mmd(torch.from_numpy(a), torch.from_numpy(b), degree=3, gamma=None, coef=1.0)
    assert kernel_distance(a, b) == pytest.approx(float(theirs), rel=1e-6)
    same = [kernel_distance(*np.random.default_rng(s).normal(size=(2, 30, 8))) for s in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5 and min(same) < 0  # neither up nor down


def test_intervals_hold_the_value_and_repeat():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(100, 4)), rng.normal(1, 1, size=(100, 4))
    interval = bootstrap(kernel_distance, a, b)
    assert (
        interval == bootstrap(kernel_distance, a, b)
        and interval["low"] < interval["mean"] < interval["high"]
    )
    assert interval["low"] > 0


def test_an_interval_covers_as_often_as_it_says():
    """Of a difference of means, whose truth is known: halves drawn without replacement need no
    rescaling.
    """

    def shift(a: np.ndarray, b: np.ndarray) -> float:
        return float(a.mean() - b.mean())

    rng = np.random.default_rng(0)
    hits, width = 0, []
    for _ in range(200):
        interval = bootstrap(shift, rng.normal(1, 1, size=(60, 1)), rng.normal(0, 1, size=(60, 1)))
        hits += interval["low"] <= 1 <= interval["high"]
        width.append(interval["high"] - interval["low"])
    assert 0.90 <= hits / 200 <= 0.99
    assert np.mean(width) == pytest.approx(2 * 1.96 * (2 / 60) ** 0.5, rel=0.05)
    # three samples −1, 0, 1: pairs have means −½, 0, ½; √2 brings their spread to the
    # standard error of the whole, and the limits to ∓√½, but for the draws' own mean
    three = bootstrap(shift, np.array([[-1.0], [0.0], [1.0]]), np.zeros((8, 1)), draws=400)
    assert [three["low"], three["high"]] == pytest.approx([-(0.5**0.5), 0.5**0.5], abs=0.08)
    assert np.isnan(bootstrap(shift, np.zeros((2, 1)), np.zeros((9, 1)))["low"])


def test_kernel_distance_over_subsets():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 8)), rng.normal(0.5, 1, size=(80, 8))
    # each holds the whole
    assert kernel_distance(a, b, subsets=2, size=80) == pytest.approx(kernel_distance(a, b))
    assert kernel_distance(a, b, subsets=200, size=30) == pytest.approx(
        kernel_distance(a, b), rel=0.05
    )
    assert kernel_distance(a, b, subsets=3, size=30) == kernel_distance(a, b, subsets=3, size=30)


def test_diversity_by_hand():
    triangle = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # sides 3, 4, 5
    assert diversity(np.stack([triangle, np.zeros((3, 2))])).tolist() == pytest.approx([4, 0])
    with pytest.raises(ValueError, match="members"):
        diversity(triangle)


def test_resizing_keeps_the_mean_and_does_not_alias():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = clean_resize([Image.fromarray(stripes)], 16)
    assert small.shape == (1, 16, 16, 3) and small.dtype == np.float32
    # nearest or plain bilinear sampling would give black or white
    assert np.abs(small - 127.5).max() < 12


def test_distribution_refuses_bad_features():
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="no number"):
        kernel_distance(np.full((4, 3), np.nan), np.zeros((4, 3)))
