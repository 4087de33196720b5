"""How well a hint read back from a picture agrees with the hint that was given: pure functions of uint8 maps (H, W)."""

from __future__ import annotations

import cv2
import numpy as np


def edge_f1(hint: np.ndarray, read: np.ndarray, tolerance: int = 1) -> float:
    """F1 of edge pixels (values above 127): a pixel agrees where the other map has one at most `tolerance` pixels away.

    Distance is the larger of the horizontal and the vertical one. Two empty maps agree fully (1), an empty and a
    non-empty one not at all (0). Raises ValueError for maps of different shape.
    """
    if hint.shape != read.shape or hint.ndim != 2:
        raise ValueError(f"Edge maps must be (H, W) and alike, not {hint.shape} and {read.shape}.")
    truth, found = (hint > 127).astype(np.uint8), (read > 127).astype(np.uint8)
    if not truth.any() or not found.any():
        return float(truth.any() == found.any())
    window = np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.uint8)
    precision = float(cv2.dilate(truth, window)[found == 1].mean())
    recall = float(cv2.dilate(found, window)[truth == 1].mean())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def score_edges(hint: np.ndarray, read: np.ndarray) -> dict[str, float]:
    """F1 of edge pixels, exact and with one pixel of tolerance."""
    return {"f1": edge_f1(hint, read, 0), "f1_1px": edge_f1(hint, read, 1)}


def score_depth(hint: np.ndarray, read: np.ndarray) -> dict[str, float]:
    """Root-mean-square difference of inverse-depth hints, in shares of the hint's range [0, 1]."""
    if hint.shape != read.shape:
        raise ValueError(f"Depth maps must be alike in shape, not {hint.shape} and {read.shape}.")
    difference = (hint.astype(np.float64) - read.astype(np.float64)) / 255
    return {"rmse": float(np.sqrt(np.mean(difference**2)))}
