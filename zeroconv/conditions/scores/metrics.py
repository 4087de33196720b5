"""The figures that scores report, and how figures of many pictures are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from numpy import ndarray

Stat = float | ndarray


@dataclass(frozen=True)
class Metric:
    name: str
    better: Literal["higher", "lower"]
    kind: Literal["mean", "ratio", "ap"]
    meaning: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("f1", "higher", "mean", "F1 of line pixels, exact"),
        Metric("f1_1px", "higher", "mean", "F1 of line pixels, within one pixel"),
        Metric("ms_ssim", "higher", "mean", "multi-scale structural similarity"),
        Metric("psnr", "higher", "mean", "peak signal-to-noise ratio in dB, at most 60"),
        Metric("si_rmse", "lower", "mean", "scale-invariant RMSE of log depth"),
        Metric(
            "delta1", "higher", "mean", "share of pixels whose depth is within a factor of 1.25"
        ),
        Metric("angle", "lower", "mean", "mean angle between normals, degrees"),
        Metric("within_11", "higher", "mean", "share of normals within 11.25°"),
        Metric("miou", "higher", "ratio", "intersection over union, mean over classes"),
        Metric("accuracy", "higher", "mean", "share of pixels of the right class"),
        Metric(
            "pck", "higher", "ratio", "visible joints within a tenth of the person's larger side"
        ),
        Metric("oks_ap", "higher", "ap", "average precision over OKS thresholds 0.50 to 0.95"),
        Metric("rmse", "lower", "mean", "RMSE of values, in shares of the range"),
        Metric("lab", "lower", "mean", "mean CIELAB distance"),
        Metric("histogram", "higher", "mean", "overlap of colour histograms"),
    )
}
