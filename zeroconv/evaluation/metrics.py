"""Measures as pure functions of arrays. Scores of hints stand in `zeroconv.conditions.scores`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Mean of the values and the 95% interval of that mean by the percentile bootstrap; the same for the same seed."""
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not len(sample):
        raise ValueError(f"An interval needs a list of at least one value, not an array of shape {sample.shape}.")
    rows = np.random.default_rng(seed).integers(len(sample), size=(draws, len(sample)))
    low, high = np.percentile(sample[rows].mean(axis=1), [2.5, 97.5])
    return {"mean": float(sample.mean()), "low": float(low), "high": float(high)}


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the mean squared difference; integers are widened first, so that nothing wraps around."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures; infinity where they are equal."""
    error = rmse(a, b)
    return float("inf") if error == 0 else 20 * float(np.log10(255 / error))


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (…, 3) in 0–255 → CIELAB (…, 3), D65 white; L in 0–100."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
