"""Scores of line drawings."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.conditions.scores.checks import check_alike, check_bytes
from zeroconv.conditions.scores.metrics import Stat


def edge_f1(truth: ndarray, read: ndarray, tolerance: int = 1) -> float:
    """F1 of edge pixels (values above 127): a pixel agrees where the other map has one at most
    `tolerance` pixels away.

    Distance is the larger of the horizontal and the vertical one. Two empty maps agree fully (1),
    an empty and a non-empty one not at all (0). Raises ValueError for maps of different shape,
    other than uint8, or of 0 and 1.
    """
    check_alike(truth, read, 2)
    check_bytes(truth, read)
    if 1 in (truth.max(), read.max()):
        raise ValueError("Line maps hold 0 and 255, not 0 and 1.")
    wanted, given = (truth > 127).astype(np.uint8), (read > 127).astype(np.uint8)
    if not wanted.any() or not given.any():
        return float(wanted.any() == given.any())
    window = np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.uint8)
    precision = float(cv2.dilate(wanted, window)[given == 1].mean())
    recall = float(cv2.dilate(given, window)[wanted == 1].mean())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def score_edges(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """F1 of edge pixels of uint8 maps (H, W), exact and with one pixel of tolerance."""
    return {"f1_1px": edge_f1(truth, read, 1), "f1": edge_f1(truth, read, 0)}
