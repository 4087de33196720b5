"""Scores of the people that a pose shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from zeroconv.conditions.scores.metrics import Stat

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
    partner = _match(likeness)

    return {
        "pck": _joints(truth, read, partner),
        "oks_ap": _detections(read, likeness, partner),
    }


def _match(likeness: ndarray) -> dict[int, int]:
    """True person → person read, each once, the best OKS (true, read) first."""
    partner: dict[int, int] = {}

    for flat in np.argsort(-likeness, axis=None):
        t, r = (int(i) for i in np.unravel_index(flat, likeness.shape))
        if likeness[t, r] > 0 and t not in partner and r not in partner.values():
            partner[t] = r

    return partner


def _joints(truth: Sequence[ndarray], read: Sequence[ndarray], partner: dict[int, int]) -> ndarray:
    """Visible joints that were read where they are, and all visible ones, (2, 1)."""
    right = seen = 0

    for t, person in enumerate(truth):
        visible = person[:, 2] == 2
        seen += int(visible.sum())
        if t in partner:
            joints = read[partner[t]][visible]
            apart = np.linalg.norm(person[visible, :2] - joints[:, :2], axis=-1)
            near = apart <= 0.1 * max(box_of(person))
            right += int((near & (joints[:, 2] > 0)).sum())

    return np.array([[right], [seen]], np.float64)


def _detections(read: Sequence[ndarray], likeness: ndarray, partner: dict[int, int]) -> ndarray:
    """A row a read person and one a missed one, see `score_pose`, (N, 12)."""
    meant = {r: t for t, r in partner.items()}
    rows = []

    for r, person in enumerate(read):
        right = likeness[meant[r], r] >= OKS_THRESHOLDS if r in meant else np.zeros(10)
        rows.append([float(person[:, 2].max()), 0.0, *right])
    rows += [[-1.0, 1.0, *np.zeros(10)] for _ in likeness]

    return np.array(rows, np.float64).reshape(-1, 12)


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
