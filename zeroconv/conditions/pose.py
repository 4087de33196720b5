"""People as OpenPose draws them: eighteen joints in fixed colours, seventeen limbs between them;
hands as rainbows, faces as white points.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.conditions.figure import Figure, figure_of

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
# a hand's bones, finger by finger from the wrist; bone i has hue i / 20, and every point is blue
BONES = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1)
    for finger in range(5)
    for joint in range(4)
)
BONE_COLOURS = tuple(
    tuple(int(255 * level) for level in colorsys.hsv_to_rgb(bone / len(BONES), 1, 1))
    for bone in range(len(BONES))
)
HAND_POINT = (0, 0, 255)
FACE_POINT = (255, 255, 255)
# the other side's joint of each
MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)


def draw_people(people: Sequence[ndarray | Figure], size: tuple[int, int]) -> ndarray:
    """People → RGB (H, W, 3) uint8, as the published annotator draws them at 512 pixels.

    people: bodies (18, 3), x, y in pixels and a third value above 0 where the joint is known, or
    figures with hands and faces. size: width, height. At 512 pixels limbs are eight pixels broad,
    joints and a hand's points four in radius, its bones two broad, a face's points three in radius.
    Other sizes scale these; limbs stay at least two pixels broad.
    """
    width, height = size
    canvas = np.zeros((height, width, 3), np.uint8)
    unit = max(width, height) / 512
    figures = [figure_of(person) for person in people]

    for figure in figures:
        _draw_limbs(canvas, figure.body, max(2, round(8 * unit)))
    for figure in figures:
        dot = max(1, round(4 * unit))
        for point, colour in zip(figure.body, COLOURS, strict=True):
            if point[2] > 0:
                cv2.circle(canvas, _pixel(point), dot, colour, -1)

    for figure in figures:
        for hand in (figure.left_hand, figure.right_hand):
            if hand is not None:
                _draw_hand(canvas, hand, unit)
        if figure.face is not None:
            for point in figure.face[figure.face[:, 2] > 0]:
                cv2.circle(canvas, _pixel(point), max(1, round(3 * unit)), FACE_POINT, -1)
    return canvas


def _draw_limbs(canvas: ndarray, body: ndarray, pen: int) -> None:
    for (a, b), colour in zip(LIMBS, COLOURS, strict=False):
        if body[a, 2] > 0 and body[b, 2] > 0:
            cv2.line(canvas, _pixel(body[a]), _pixel(body[b]), _dim(colour), pen)


def _draw_hand(canvas: ndarray, hand: ndarray, unit: float) -> None:
    """Bones, then points, as the published annotator does."""
    for (a, b), colour in zip(BONES, BONE_COLOURS, strict=True):
        if hand[a, 2] > 0 and hand[b, 2] > 0:
            cv2.line(canvas, _pixel(hand[a]), _pixel(hand[b]), colour, max(1, round(2 * unit)))
    for point in hand[hand[:, 2] > 0]:
        cv2.circle(canvas, _pixel(point), max(1, round(4 * unit)), HAND_POINT, -1)


def _pixel(point: ndarray) -> tuple[int, int]:
    return int(np.floor(point[0])), int(np.floor(point[1]))


def mirror_people(people: Sequence[ndarray], width: int) -> list[ndarray]:
    """The bodies of the mirrored picture: x turned round, left and right exchanged."""
    turned = []
    for person in people:
        other = np.asarray(person)[list(MIRRORED)].copy()
        other[:, 0] = width - other[:, 0]
        turned.append(other)
    return turned


def mirror_hint(hint: ndarray) -> ndarray:
    """A drawn pose (H, W, 3) in a mirror: flipped, and the colours of left and right exchanged,
    but for those of hands. A grey one (H, W) shows nobody.
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

    hands = _hand_pixels(flipped)
    out[hands] = flipped[hands]
    return np.stack([out >> 16, out >> 8 & 255, out & 255], -1).astype(np.uint8)


def _hand_pixels(codes: ndarray) -> ndarray:
    """(H, W) bool: pixels of hands whose colours joints have too.

    A hand's points are blue as the left knee is, and one of its bones has the right knee's cyan. A
    patch of these that touches colours which only hands have belongs to a hand.
    """
    joints = {_code(colour) for colour in COLOURS}
    alone = [_code(colour) for colour in BONE_COLOURS if _code(colour) not in joints]
    only_hands = np.isin(codes, alone)
    if not only_hands.any():
        return only_hands
    shared = [_code(colour) for colour in (HAND_POINT, *BONE_COLOURS) if _code(colour) in joints]
    _, patches = cv2.connectedComponents(np.isin(codes, shared).astype(np.uint8))
    near = cv2.dilate(only_hands.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    touched = np.unique(patches[near & (patches > 0)])
    return np.isin(patches, touched) & (patches > 0)


def _dim(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return (colour[0] * 6 // 10, colour[1] * 6 // 10, colour[2] * 6 // 10)


def _code(colour: tuple[int, ...]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
