"""Hands (21 points) and faces (70) of people whose bodies are known, by MediaPipe's networks.

Hands: a palm detector looks around the wrist, then the landmark network reads the turned square
that holds the hand (Zhang et al. 2020, MediaPipe Hands). Faces: the mesh network (Kartynnik et al.
2019) reads a square around eyes and nose, then the square that its own points say.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy import ndarray

from zeroconv.annotators.litert import from_crop, run, square
from zeroconv.conditions.figure import Figure

SURE = 0.5  # of a palm, a hand or a face
PALM_SIDE, HAND_SIDE, FACE_SIDE = 192, 224, 192  # pixels that the networks read
# OpenPose's joints, 0 the nose and 1 the neck
ARMS = {"right_hand": (2, 3, 4), "left_hand": (5, 6, 7)}  # shoulder, elbow, wrist
NOSE, RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR = 0, 14, 15, 16, 17

# points of MediaPipe's face mesh along the jaw, from the right ear to the left one
# fmt: off
JAW = (
    127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152,
    377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356,
)
# the others in iBUG's order: brows, nose, eyes, lips outside and inside
MESH = (
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on
_EYES = (slice(36, 42), slice(42, 48))  # the right one's six points, the left one's
_MESH_EYES = (33, 263)  # outer corners


def with_hands(image: ndarray, figure: Figure, palm: Path, hand: Path) -> Figure:
    """The figure with the hands that are seen at its wrists; image (H, W, 3) uint8 RGB."""
    hands = {side: _hand(image, figure.body, arm, palm, hand) for side, arm in ARMS.items()}
    left, right = hands["left_hand"], hands["right_hand"]
    if left is not None and right is not None and _same(left, right):
        # both wrists' squares hold it: it is that wrist's to which it is nearer
        apart = {
            side: np.hypot(*(hands[side][0, :2] - figure.body[arm[2], :2]))  # type: ignore[index]
            for side, arm in ARMS.items()
        }
        hands[max(apart, key=lambda side: apart[side])] = None
    return Figure(figure.body, hands["left_hand"], hands["right_hand"], figure.face)


def _same(one: ndarray, other: ndarray) -> bool:
    size = np.ptp(one[:, :2], axis=0).max()
    return float(np.hypot(*(one[:, :2] - other[:, :2]).T).mean()) < 0.3 * size


def _hand(
    image: ndarray, body: ndarray, arm: tuple[int, int, int], palm: Path, hand: Path
) -> ndarray | None:
    around = _around_wrist(body, arm)
    if around is None:
        return None
    centre, side = around
    palm_points = _palm(square(image, centre, side, 0, PALM_SIDE), palm)
    if palm_points is None:
        return None

    corners = from_crop(palm_points, centre, side, 0, PALM_SIDE)
    turned = _hand_square(corners[:4], corners[4:])
    outputs = run(hand, square(image, *turned, HAND_SIDE))
    if float(outputs[1][0]) < SURE:
        return None
    points = from_crop(outputs[0].reshape(21, 3)[:, :2], *turned, HAND_SIDE)
    return np.column_stack([points, np.ones(21)]).astype(np.float32)


def _around_wrist(body: ndarray, arm: tuple[int, int, int]) -> tuple[ndarray, float] | None:
    """Centre and side of a square that should hold a hand: beyond the wrist, as long as arms."""
    shoulder, elbow, wrist = (body[joint] for joint in arm)
    if wrist[2] <= 0:
        return None
    lengths = []
    centre = wrist[:2].astype(np.float64)
    if elbow[2] > 0:
        lengths.append(np.hypot(*(wrist - elbow)[:2]))
        centre = centre + 0.33 * (wrist - elbow)[:2]
        if shoulder[2] > 0:
            lengths.append(0.9 * np.hypot(*(elbow - shoulder)[:2]))
    if body[2, 2] > 0 and body[5, 2] > 0:
        lengths.append(0.7 * np.hypot(*(body[2] - body[5])[:2]))
    longest = max(lengths, default=0.0)
    return (centre, 2.0 * longest) if longest >= 4 else None


def _palm(pixels: ndarray, path: Path) -> ndarray | None:
    """The surest palm in a square: its box's corners (4, 2), then wrist and middle knuckle (2, 2),
    in the square's pixels.
    """
    boxes, scores = run(path, pixels)
    best = int(scores[:, 0].argmax())
    if 1 / (1 + np.exp(-np.clip(scores[best, 0], -50, 50))) < SURE:
        return None
    anchor = _anchors()[best]
    raw = boxes[best] + np.concatenate([anchor, (0, 0), np.tile(anchor, 7)])
    x, y, width, height = raw[:4]
    half = np.array([width, height]) / 2
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    keypoints = raw[4:].reshape(7, 2)
    return np.concatenate([(x, y) + signs * half, keypoints[[0, 2]]])


@lru_cache
def _anchors() -> ndarray:
    """Centres (2016, 2) of the palm detector's boxes in pixels: two a cell of 24², six of 12²."""
    centres = []
    for cells, boxes in ((24, 2), (12, 6)):
        steps = (np.arange(cells) + 0.5) * PALM_SIDE / cells
        grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        centres.append(np.repeat(grid, boxes, axis=0))
    return np.concatenate(centres)


def _hand_square(box: ndarray, line: ndarray) -> tuple[ndarray, float, float]:
    """Centre, side and angle of a hand's square: fingers up, moved by half the palm towards them,
    2.6 palms long.
    """
    wrist, knuckle = line
    angle = float(np.arctan2(*(knuckle - wrist)[::-1]) + np.pi / 2)
    side = float(np.ptp(box, axis=0).max())
    up = np.array([np.sin(angle), -np.cos(angle)])
    return box.mean(axis=0) + 0.5 * side * up, 2.6 * side, angle


# ---------------------------------------------------------------- faces


def with_face(image: ndarray, figure: Figure, mesh: Path) -> Figure:
    """The figure with its face, where one is seen; image (H, W, 3) uint8 RGB."""
    around = _around_eyes(figure.body)
    points = None
    for _ in range(2):
        if around is None:
            return figure
        outputs = run(mesh, square(image, *around, FACE_SIDE))
        if 1 / (1 + np.exp(-float(outputs[1].ravel()[0]))) < SURE:
            return figure
        points = from_crop(outputs[0].reshape(468, 3)[:, :2], *around, FACE_SIDE)
        around = _face_square(points)
    assert points is not None
    face = np.concatenate([_jaw(points[list(JAW)]), points[list(MESH)]])
    pupils = [face[eye].mean(axis=0) for eye in _EYES]
    face = np.column_stack([np.concatenate([face, pupils]), np.ones(70)]).astype(np.float32)
    return Figure(figure.body, figure.left_hand, figure.right_hand, face)


def _jaw(line: ndarray) -> ndarray:
    """iBUG's 17 points of the jaw, (17, 2): eight even steps from each ear to the chin."""
    chin = len(line) // 2
    right, left = _even(line[: chin + 1]), _even(line[chin:])
    return np.concatenate([right, left[1:]])


def _even(line: ndarray, steps: int = 8) -> ndarray:
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0, along[-1], steps + 1)
    return np.stack([np.interp(at, along, line[:, axis]) for axis in (0, 1)], -1)


def _around_eyes(body: ndarray) -> tuple[ndarray, float, float] | None:
    """Centre, side and angle of a square around a head, from its eyes, nose and ears."""
    seen = [joint for joint in (NOSE, RIGHT_EYE, LEFT_EYE) if body[joint, 2] > 0]
    if len(seen) < 2:
        return None
    centre = body[seen, :2].mean(axis=0).astype(np.float64)
    angle, sizes = 0.0, []
    if body[RIGHT_EYE, 2] > 0 and body[LEFT_EYE, 2] > 0:
        line = (body[LEFT_EYE] - body[RIGHT_EYE])[:2]
        angle = float(np.arctan2(line[1], line[0]))
        sizes.append(3.8 * np.hypot(*line))
    for one, other, factor in ((RIGHT_EAR, LEFT_EAR, 1.8), (NOSE, 1, 1.6)):
        if body[one, 2] > 0 and body[other, 2] > 0:
            sizes.append(factor * np.hypot(*(body[one] - body[other])[:2]))
    side = max(sizes, default=0.0)
    return (centre, float(side), angle) if side >= 8 else None


def _face_square(points: ndarray) -> tuple[ndarray, float, float]:
    """The square that a face's own points say: level eyes, half as long again as the face."""
    right, left = points[list(_MESH_EYES)]
    angle = float(np.arctan2(*(left - right)[::-1]))
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, 1.5 * float((high - low).max()), angle
