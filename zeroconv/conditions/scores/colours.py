"""Scores of colour pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.conditions.scores.checks import check_alike, check_bytes
from zeroconv.conditions.scores.metrics import Stat


def score_pixels(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """RGB pictures uint8 (H, W, 3): RMSE in shares of 255, and the mean distance in CIELAB."""
    check_alike(truth, read, 3)
    check_bytes(truth, read)
    difference = truth.astype(np.float64) - read.astype(np.float64)
    lab: list[Any] = [
        cv2.cvtColor(m.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for m in (truth, read)
    ]
    return {
        "rmse": float(np.sqrt(np.mean(difference**2)) / 255),
        "lab": float(np.linalg.norm(lab[0] - lab[1], axis=-1).mean()),
    }
