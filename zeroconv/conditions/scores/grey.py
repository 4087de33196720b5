"""Scores of grey maps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.conditions.scores.checks import check_alike, check_bytes
from zeroconv.conditions.scores.metrics import Stat

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik 2003


def ms_ssim(a: ndarray, b: ndarray) -> float:
    """Multi-scale structural similarity of grey maps (H, W) in 0–255, at as many of the five scales
    as an 11-pixel window fits into, their weights scaled to sum to 1; negative contrast terms count
    as 0.
    """
    check_alike(a, b, 2)
    fitting = 1
    while fitting < len(_SCALES) and min(a.shape) >> fitting >= 11:
        fitting += 1
    weights = np.array(_SCALES[:fitting]) / sum(_SCALES[:fitting])
    x, y = a.astype(np.float64), b.astype(np.float64)
    value = 1.0
    for scale, weight in enumerate(weights):
        luminance, contrast = _ssim_terms(x, y)
        last = scale == len(weights) - 1
        value *= max(0.0, float((luminance * contrast if last else contrast).mean())) ** float(
            weight
        )
        if not last:
            x, y = (
                cv2.resize(m, (m.shape[1] // 2, m.shape[0] // 2), interpolation=cv2.INTER_AREA)
                for m in (x, y)
            )
    return value


def _ssim_terms(x: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
    """Luminance and contrast-structure maps where the window lies inside; Gaussian window of 11
    pixels, σ 1.5.
    """
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def smooth(m: ndarray) -> ndarray:
        edge = min(5, (min(m.shape) - 1) // 2)
        return cv2.GaussianBlur(m, (11, 11), 1.5)[
            edge : m.shape[0] - edge, edge : m.shape[1] - edge
        ]

    mx, my = smooth(x), smooth(y)
    xx, yy, xy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * xy + c2) / (xx + yy + c2)


def score_soft(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """Grey maps uint8 (H, W): MS-SSIM and PSNR. PSNR stops at 60 dB: equal maps would make the mean
    infinite.
    """
    check_alike(truth, read, 2)
    check_bytes(truth, read)
    error = float(np.mean((truth.astype(np.float64) - read.astype(np.float64)) ** 2))
    psnr = 60.0 if error == 0 else min(60.0, 10 * float(np.log10(255**2 / error)))
    return {"ms_ssim": ms_ssim(truth, read), "psnr": psnr}
