"""Measures as pure functions of arrays. Scores of hints stand in `zeroconv.conditions.scores`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroconv.conditions.scores import average_precision


def interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Mean of the values and the 95% interval of that mean by the percentile bootstrap; the same
    for the same seed.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not len(sample):
        raise ValueError(
            f"An interval needs a list of at least one value, not an array of shape {sample.shape}."
        )
    rows = np.random.default_rng(seed).integers(len(sample), size=(draws, len(sample)))
    low, high = np.percentile(sample[rows].mean(axis=1), [2.5, 97.5])
    return {"mean": float(sample.mean()), "low": float(low), "high": float(high)}


def known_numbers(report: Any) -> Any:
    """A report with None in the place of every number that is NaN or infinite: JSON has neither."""
    if isinstance(report, dict):
        return {key: known_numbers(value) for key, value in report.items()}
    if isinstance(report, list | tuple):
        return [known_numbers(value) for value in report]
    return None if isinstance(report, float) and not math.isfinite(report) else report


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the mean squared difference; integers are widened first, so that nothing wraps
    around.
    """
    return float(np.sqrt(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures; infinity where they are equal."""
    error = rmse(a, b)
    return float("inf") if error == 0 else 20 * float(np.log10(255 / error))


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (…, 3) in 0–255 → CIELAB (…, 3), D65 white; L in 0–100."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


# ---------------------------------- figures of many pictures, see `conditions.scores`

Stats = Sequence[float | np.ndarray]


def summarise(
    stats: Stats, kind: str = "mean", draws: int = 2000, seed: int = 0
) -> dict[str, float]:
    """One figure of many pictures with its 95% interval by the percentile bootstrap over pictures.

    kind: "mean", "ratio" or "ap", as `conditions.scores.METRICS` says of each metric.
    """
    resampled = _resampled(stats, kind, _rows(len(stats), kind, draws, seed))
    return {"mean": _value(stats, kind), **_limits(resampled)}


def paired_interval(
    a: Stats, b: Stats, kind: str = "mean", draws: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Figure of `a` minus figure of `b`, of the same pictures, and its 95% interval: they are
    resampled together.
    """
    if len(a) != len(b):
        raise ValueError(f"Pairs need two lists of one length, not {len(a)} and {len(b)}.")
    rows = _rows(len(a), kind, draws, seed)
    difference = _resampled(a, kind, rows) - _resampled(b, kind, rows)
    return {"mean": _value(a, kind) - _value(b, kind), **_limits(difference)}


def _rows(count: int, kind: str, draws: int, seed: int) -> np.ndarray:
    """Which pictures each draw takes, (draws, count); fewer draws for average precision, which
    sorts in each.
    """
    if not count:
        raise ValueError("A figure needs at least one picture.")
    return np.random.default_rng(seed).integers(
        count, size=(min(draws, 300) if kind == "ap" else draws, count)
    )


def _value(stats: Stats, kind: str) -> float:
    return float(_resampled(stats, kind, np.arange(len(stats))[None])[0])


def _resampled(stats: Stats, kind: str, rows: np.ndarray) -> np.ndarray:
    """The figure of each draw, (draws,)."""
    if kind == "mean":
        return np.asarray(stats, np.float64)[rows].mean(axis=1)
    if kind == "ratio":
        table = np.stack([np.asarray(s, np.float64) for s in stats])  # (pictures, 2, K)
        counts = np.stack([np.bincount(row, minlength=len(table)) for row in rows]).astype(
            np.float64
        )
        parts = np.einsum("dp,pnk->dnk", counts, table)
        shares = np.where(parts[:, 1] > 0, parts[:, 0] / np.maximum(parts[:, 1], 1e-300), np.nan)
        with np.errstate(all="ignore"):
            defined = (parts[:, 1] > 0).sum(1)
            return np.where(defined > 0, np.nansum(shares, axis=1) / np.maximum(defined, 1), np.nan)
    if kind == "ap":
        return np.array(
            [average_precision(np.concatenate([stats[i] for i in row])) for row in rows]
        )
    raise ValueError(f"There is no kind {kind!r} of figure.")


def _limits(values: np.ndarray) -> dict[str, float]:
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return {"low": float(low), "high": float(high)}
