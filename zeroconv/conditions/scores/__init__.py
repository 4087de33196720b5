"""How well what was read back from a picture agrees with what was asked for: pure functions of
(truth, read).

Each returns named figures of one picture. A figure is a number, whose mean over the pictures is
reported ("mean"); an array (2, K) of numerators and denominators, which are summed over the
pictures before they are divided, and the K shares averaged ("ratio": mIoU over classes, PCK over
joints); or an array (N, 12) of people for "ap", see `score_pose`.
"""

from __future__ import annotations

from zeroconv.conditions.scores.colours import score_pixels
from zeroconv.conditions.scores.geometry import (
    score_depth,
    score_inverse_depth,
    score_normals,
    score_segmentation,
)
from zeroconv.conditions.scores.grey import ms_ssim, score_soft
from zeroconv.conditions.scores.lines import edge_f1, score_edges
from zeroconv.conditions.scores.metrics import METRICS, Metric, Stat
from zeroconv.conditions.scores.people import (
    OKS_THRESHOLDS,
    average_precision,
    box_of,
    oks,
    score_pose,
)

__all__ = [
    "METRICS",
    "OKS_THRESHOLDS",
    "Metric",
    "Stat",
    "average_precision",
    "box_of",
    "edge_f1",
    "ms_ssim",
    "oks",
    "score_depth",
    "score_edges",
    "score_inverse_depth",
    "score_normals",
    "score_pixels",
    "score_pose",
    "score_segmentation",
    "score_soft",
]
