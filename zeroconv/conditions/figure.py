"""A person as points: body, hands and face, in OpenPose's orders."""

from __future__ import annotations

from dataclasses import dataclass

from numpy import ndarray

BODY, HAND, FACE = 18, 21, 70  # points of each part


@dataclass(frozen=True)
class Figure:
    """One person. Each part is float32 (points, 3): x, y in pixels, and a third value above 0 where
    the point is known.

    body: COCO's 18 points. left_hand, right_hand: the person's own sides, 21 points each, the wrist
    first, then four a finger from the thumb on. face: 68 points as iBUG numbers them, then the
    pupils, right and left. None: the part was not looked for, or is not there.
    """

    body: ndarray
    left_hand: ndarray | None = None
    right_hand: ndarray | None = None
    face: ndarray | None = None


def figure_of(person: ndarray | Figure) -> Figure:
    """A body alone (18, 3) as a figure; figures as they are."""
    return person if isinstance(person, Figure) else Figure(person)
