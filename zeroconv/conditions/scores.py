"""How well what was read back from a picture agrees with what was asked for: pure functions of
(truth, read).

Each returns named figures of one picture. A figure is a number, whose mean over the pictures is
reported ("mean"); an array (2, K) of numerators and denominators, which are summed over the
pictures before they are divided, and the K shares averaged ("ratio": mIoU over classes, PCK over
joints); or an array (N, 12) of people for "ap", see `score_pose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
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


def _alike(truth: ndarray, read: ndarray, dimensions: int) -> None:
    if truth.shape != read.shape or truth.ndim != dimensions:
        raise ValueError(
            f"Maps must be alike and have {dimensions} dimensions, not {truth.shape} and "
            f"{read.shape}."
        )
    if not truth.size:
        raise ValueError(f"Maps of shape {truth.shape} hold nothing to compare.")
    for array in (truth, read):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("A map holds values that are no numbers.")


def _bytes(*maps: ndarray) -> None:
    """A map in 0–1 where 0–255 is meant would be nearly black, and two black maps agree: no score
    may flatter so.
    """
    for array in maps:
        if array.dtype != np.uint8:
            raise ValueError(f"Maps must be uint8 in 0–255, not {array.dtype}.")


# ---------------------------------------------------------------- lines


def edge_f1(truth: ndarray, read: ndarray, tolerance: int = 1) -> float:
    """F1 of edge pixels (values above 127): a pixel agrees where the other map has one at most
    `tolerance` pixels away.

    Distance is the larger of the horizontal and the vertical one. Two empty maps agree fully (1),
    an empty and a non-empty one not at all (0). Raises ValueError for maps of different shape,
    other than uint8, or of 0 and 1.
    """
    _alike(truth, read, 2)
    _bytes(truth, read)
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


# ---------------------------------------------------------------- grey maps

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik 2003


def ms_ssim(a: ndarray, b: ndarray) -> float:
    """Multi-scale structural similarity of grey maps (H, W) in 0–255, at as many of the five scales
    as an 11-pixel window fits into, their weights scaled to sum to 1; negative contrast terms count
    as 0.
    """
    _alike(a, b, 2)
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
    _alike(truth, read, 2)
    _bytes(truth, read)
    error = float(np.mean((truth.astype(np.float64) - read.astype(np.float64)) ** 2))
    psnr = 60.0 if error == 0 else min(60.0, 10 * float(np.log10(255**2 / error)))
    return {"ms_ssim": ms_ssim(truth, read), "psnr": psnr}


# ---------------------------------------------------------------- geometry


def score_depth(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """Depth in metres (H, W), above 0: δ1, and the scale-invariant RMSE of log depth (Eigen et al.
    2014).

    Both maps are taken as they are: no map is brought to the other's range first.
    """
    _alike(truth, read, 2)
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
    _alike(truth, read, 2)
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
    _alike(truth, read, 3)
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
    _alike(truth, read, 2)
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


# ---------------------------------------------------------------- people

# how far a joint may be off in shares of the person's size: COCO's, in OpenPose's order; the neck
# as the shoulders
_FALLOFF = (
    np.array([26, 79, 79, 72, 62, 79, 72, 62, 107, 87, 89, 107, 87, 89, 25, 25, 35, 35]) / 1000
)
OKS_THRESHOLDS = np.arange(0.50, 0.96, 0.05)


def box_of(person: ndarray) -> tuple[float, float]:
    """Width and height of the box around a person's known joints (third value above 0), at least
    one pixel.
    """
    known = person[person[:, 2] > 0, :2]
    width, height = (known.max(0) - known.min(0)).tolist() if len(known) else (0.0, 0.0)
    return max(1.0, width), max(1.0, height)


def oks(truth: ndarray, read: ndarray) -> float:
    """Object keypoint similarity (COCO) over the joints known in the truth; people (18, 3).

    The person's area is that of the box around the joints: COCO takes the silhouette's, which a
    pose does not tell. A joint that was not read (confidence 0) counts 0, wherever its place holder
    lies.
    """
    known = truth[:, 2] > 0
    if not known.any():
        return 0.0
    width, height = box_of(truth)
    apart = ((truth[known, :2] - read[known, :2]).astype(np.float64) ** 2).sum(-1)
    near = np.exp(-apart / (2 * width * height * (2 * _FALLOFF[known]) ** 2))
    return float((near * (read[known, 2] > 0)).mean())


def score_pose(truth: Sequence[ndarray], read: Sequence[ndarray]) -> dict[str, Stat]:
    """People (18, 3): x, y, and in the truth 2 visible, 1 hidden, 0 outside, in what was read a
    confidence.

    "pck": of the visible joints, those read within a tenth of the larger side of the person's box;
    a person who was not read counts all of them as wrong. "oks_ap": one row a read person and one a
    missed one, its columns confidence (−1 missed), whether it stands for a true person, and ten
    thresholds' right or wrong. People are matched once each, the best OKS first. Raises ValueError
    for people of another shape, and for places that are no numbers.
    """
    truth, read = [np.asarray(p) for p in truth], [np.asarray(p) for p in read]
    for person in (*truth, *read):
        if person.shape != (len(_FALLOFF), 3):
            raise ValueError(f"A person is (18, 3), in OpenPose's order, not {person.shape}.")
    if any(not np.isfinite(p).all() for p in (*truth, *read)):
        raise ValueError("A joint's place is no number.")
    truth = [p for p in truth if (p[:, 2] > 0).any()]
    likeness = np.array([[oks(t, r) for r in read] for t in truth]).reshape(len(truth), len(read))
    match: dict[int, int] = {}  # read → truth
    for flat in np.argsort(-likeness, axis=None):
        t, r = np.unravel_index(flat, likeness.shape)
        if likeness[t, r] > 0 and int(r) not in match and int(t) not in match.values():
            match[int(r)] = int(t)
    right = seen = 0
    partner = {t: r for r, t in match.items()}
    for t, person in enumerate(truth):
        visible = person[:, 2] == 2
        seen += int(visible.sum())
        if t in partner:
            joints = read[partner[t]][visible]
            apart = np.linalg.norm(person[visible, :2] - joints[:, :2], axis=-1)
            right += int(((apart <= 0.1 * max(box_of(person))) & (joints[:, 2] > 0)).sum())
    rows = [
        [
            float(r[:, 2].max()),
            0.0,
            *((likeness[match[i], i] >= OKS_THRESHOLDS) if i in match else np.zeros(10)),
        ]
        for i, r in enumerate(read)
    ]
    rows += [[-1.0, 1.0, *np.zeros(10)] for _ in truth]
    return {
        "pck": np.array([[right], [seen]], np.float64),
        "oks_ap": np.array(rows, np.float64).reshape(-1, 12),
    }


def average_precision(rows: ndarray) -> float:
    """COCO's average precision of `score_pose`'s rows (N, 12) of many pictures: mean over ten OKS
    thresholds of the precision at 101 recalls, interpolated. NaN where there is nobody to be found.
    """
    people = rows[rows[:, 1] == 1]
    detections = rows[rows[:, 1] == 0]
    if not len(people):
        return float("nan")
    if not len(detections):
        return 0.0
    right = detections[np.argsort(-detections[:, 0], kind="stable"), 2:]  # (N, 10)
    true = np.cumsum(right, axis=0)
    recall, precision = true / len(people), true / np.arange(1, len(right) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    levels = np.linspace(0, 1, 101)
    values = []
    for column in range(right.shape[1]):
        at = np.searchsorted(recall[:, column], levels, side="left")
        values.append(
            np.where(at < len(right), precision[np.minimum(at, len(right) - 1), column], 0.0).mean()
        )
    return float(np.mean(values))


# ---------------------------------------------------------------- colours


def score_pixels(truth: ndarray, read: ndarray) -> dict[str, Stat]:
    """RGB pictures uint8 (H, W, 3): RMSE in shares of 255, and the mean distance in CIELAB."""
    _alike(truth, read, 3)
    _bytes(truth, read)
    difference = truth.astype(np.float64) - read.astype(np.float64)
    lab: list[Any] = [
        cv2.cvtColor(m.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for m in (truth, read)
    ]
    return {
        "rmse": float(np.sqrt(np.mean(difference**2)) / 255),
        "lab": float(np.linalg.norm(lab[0] - lab[1], axis=-1).mean()),
    }
