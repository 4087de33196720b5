"""Scores of depth, normals and classes."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from zeroconv.conditions.scores.checks import check_alike
from zeroconv.conditions.scores.metrics import Stat


def score_depth(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """Depth in metres (H, W), above 0: δ1, and the scale-invariant RMSE of log depth (Eigen et al.
    2014).

    Both maps are taken as they are: no map is brought to the other's range first.
    """
    check_alike(truth, read, 2)
    if (truth <= 0).any() or (read <= 0).any():
        raise ValueError("Depth must be above 0.")
    difference = np.log(read.astype(np.float64)) - np.log(truth.astype(np.float64))
    return {
        "delta1": float((np.abs(difference) < np.log(1.25)).mean()),
        "si_rmse": float(difference.std()),
    }


def score_inverse_depth(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """Inverse depth (H, W), both uint8 hints or both floats in [0, 1]: RMSE in shares of the range.

    Neither map is rescaled, so both must share one scale: raises ValueError for a hint beside
    floats, or outside [0, 1].
    """
    check_alike(truth, read, 2)
    if (truth.dtype == np.uint8) != (read.dtype == np.uint8):
        raise ValueError(
            f"Inverse depths must share one scale, not {truth.dtype} and {read.dtype}."
        )
    a, b = (m.astype(np.float64) / (255 if m.dtype == np.uint8 else 1) for m in (truth, read))
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) > 1:
        raise ValueError("Inverse depth must lie in [0, 1].")
    return {"rmse": float(np.sqrt(np.mean((a - b) ** 2)))}


def score_normals(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """Unit normals (H, W, 3): mean angle in degrees, and the share within 11.25°. Pixels without a
    normal in the truth (zero length) do not count; a pixel without one in what was read is as wrong
    as can be, 180°.
    """
    check_alike(truth, read, 3)
    known = np.linalg.norm(truth, axis=-1) > 0.5
    if not known.any():
        raise ValueError("The true normals are all without length.")
    a, b = truth[known].astype(np.float64), read[known].astype(np.float64)
    # atan2 keeps its precision near 0° and 180°, where arccos has none
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
    # else a vector of no length would be at 0° to any other
    angle[np.linalg.norm(b, axis=-1) < 1e-6] = 180.0
    return {"angle": float(angle.mean()), "within_11": float((angle < 11.25).mean())}


def score_segmentation(truth: ndarray, read: ndarray, classes: int) -> dict[str, Stat]:
    """Class ids (H, W): intersection and union of each class, and the share of right pixels. 255 in
    the truth: not scored. Raises ValueError for ids that are no class, and where nothing is left to
    score.
    """
    check_alike(truth, read, 2)
    if truth.dtype.kind not in "iu" or read.dtype.kind not in "iu":
        raise ValueError(f"Class ids must be integers, not {truth.dtype} and {read.dtype}.")
    scored = truth != 255
    if not scored.any():
        raise ValueError("Every pixel of the true classes is 255, not to be scored.")
    a, b = truth[scored].astype(np.int64), read[scored].astype(np.int64)
    for wrong in (min(a.min(), b.min()), max(a.max(), b.max())):
        if not 0 <= wrong < classes:
            raise ValueError(f"Class {wrong} is none of {classes}.")
    confusion = (
        np.bincount(a * classes + b, minlength=classes * classes)
        .reshape(classes, classes)
        .astype(np.float64)
    )
    right = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - right
    return {"miou": np.stack([right, union]), "accuracy": float(right.sum() / confusion.sum())}
