"""People as OpenPose draws them: eighteen joints in fixed colours, seventeen limbs between them;
and as its JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.errors import UserError

# joints in OpenPose's order: nose, neck, right arm (3), left arm (3), right leg (3), left leg
# (3), eyes, ears
LIMBS = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
)
# the wheel of hues that OpenPose steps through, a joint each; a limb has the colour of its number
# at 60%
COLOURS = (
    (255, 0, 0),
    (255, 85, 0),
    (255, 170, 0),
    (255, 255, 0),
    (170, 255, 0),
    (85, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 255, 170),
    (0, 255, 255),
    (0, 170, 255),
    (0, 85, 255),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (255, 0, 255),
    (255, 0, 170),
    (255, 0, 85),
)
# the other side's joint of each
MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)


def draw_people(people: Sequence[ndarray], size: tuple[int, int]) -> ndarray:
    """People (18, 3), x, y in pixels and a third value above 0 where the joint is known → RGB (H,
    W, 3) uint8.

    `size` (width, height). Limbs are four pixels broad and joints four in radius at 512 pixels,
    never below two.
    """
    width, height = size
    canvas = np.zeros((height, width, 3), np.uint8)
    unit = max(width, height) / 512
    pen, dot = max(2, round(8 * unit)), max(1, round(4 * unit))
    for person in people:
        for (a, b), colour in zip(LIMBS, COLOURS, strict=False):
            if person[a, 2] > 0 and person[b, 2] > 0:
                cv2.line(
                    canvas,
                    _pixel(person[a]),
                    _pixel(person[b]),
                    tuple(c * 6 // 10 for c in colour),
                    pen,
                )
    for person in people:
        for point, colour in zip(person, COLOURS, strict=True):
            if point[2] > 0:
                cv2.circle(canvas, _pixel(point), dot, colour, -1)
    return canvas


def _pixel(point: ndarray) -> tuple[int, int]:
    return int(np.floor(point[0])), int(np.floor(point[1]))


def mirror_people(people: Sequence[ndarray], width: int) -> list[ndarray]:
    """The people of the mirrored picture: x turned round, left and right exchanged."""
    turned = []
    for person in people:
        other = np.asarray(person)[list(MIRRORED)].copy()
        other[:, 0] = width - other[:, 0]
        turned.append(other)
    return turned


def mirror_hint(hint: ndarray) -> ndarray:
    """A drawn pose (H, W, 3) in a mirror: flipped, and the colours of left and right exchanged. A
    grey one (H, W) shows nobody.
    """
    if hint.ndim == 2:
        return hint[:, ::-1]
    flipped = hint[:, ::-1].astype(np.int64) @ (65536, 256, 1)
    out = flipped.copy()
    for joint, other in enumerate(MIRRORED):
        out[flipped == _code(COLOURS[joint])] = _code(COLOURS[other])
    for number, (a, b) in enumerate(LIMBS):
        pair = {MIRRORED[a], MIRRORED[b]}
        other = next(i for i, limb in enumerate(LIMBS) if set(limb) == pair)
        out[flipped == _code(_dim(COLOURS[number]))] = _code(_dim(COLOURS[other]))
    return np.stack([out >> 16, out >> 8 & 255, out & 255], -1).astype(np.uint8)


def _dim(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return (colour[0] * 6 // 10, colour[1] * 6 // 10, colour[2] * 6 // 10)


def _code(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def to_openpose(people: Sequence[ndarray], size: tuple[int, int]) -> dict[str, Any]:
    """OpenPose's JSON, as A1111's editors read it: x, y, confidence of 18 joints a person, zeros
    where unknown.
    """
    rows = [
        np.where(person[:, 2:] > 0, person, 0).astype(float).round(3).ravel().tolist()
        for person in people
    ]
    return {
        "people": [{"pose_keypoints_2d": row} for row in rows],
        "canvas_width": size[0],
        "canvas_height": size[1],
    }


def from_openpose(value: dict[str, Any]) -> tuple[list[ndarray], tuple[int, int]]:
    """People (18, 3) in pixels and the canvas (width, height). Raises UserError for another
    layout.
    """
    try:
        size = (int(value["canvas_width"]), int(value["canvas_height"]))
        people = [
            np.asarray(p["pose_keypoints_2d"], np.float32).reshape(18, 3) for p in value["people"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "the pose is not OpenPose's JSON: it needs canvas_width, canvas_height and people "
            f"with 18 × 3 numbers in pose_keypoints_2d ({error})."
        ) from error
    known = [p for p in people if (p[:, 2] > 0).any()]
    # some editors write shares of the canvas
    if known and max(float(p[:, :2].max()) for p in known) <= 1.0:
        people = [p * np.array([*size, 1], np.float32) for p in people]
    return people, size
