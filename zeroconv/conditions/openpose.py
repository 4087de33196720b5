"""OpenPose's JSON, in and out: as A1111's pose editors, ComfyUI's nodes and OpenPose write it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from zeroconv import pictures
from zeroconv.conditions.figure import BODY, FACE, HAND, Figure, figure_of
from zeroconv.errors import UserError
from zeroconv.jsonfile import read_json

# BODY_25's points in the order of COCO's 18; its mid-hip (8) and feet (19 to 24) have none there
BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
KEYS = {
    "left_hand": "hand_left_keypoints_2d",
    "right_hand": "hand_right_keypoints_2d",
    "face": "face_keypoints_2d",
}
_FARTHEST = 1e6  # pixels from the canvas' corner; OpenCV draws with 32-bit integers
_LARGEST = 64_000_000  # bytes of a file
_LAYOUT = "OpenPose's JSON has people, each with pose_keypoints_2d, canvas_width and canvas_height"


def to_openpose(people: Sequence[ndarray | Figure], size: tuple[int, int]) -> dict[str, Any]:
    """People on a canvas of `size` (width, height) as OpenPose's JSON: x, y, confidence of each
    point, zeros where it is not known. Hands and faces are written where a figure has them.
    """
    return {
        "people": [_written(figure_of(person)) for person in people],
        "canvas_width": size[0],
        "canvas_height": size[1],
    }


def _written(figure: Figure) -> dict[str, list[float]]:
    parts = {"pose_keypoints_2d": figure.body}
    parts |= {key: getattr(figure, part) for part, key in KEYS.items()}
    return {
        key: np.where(points[:, 2:] > 0, points, 0).astype(float).round(3).ravel().tolist()
        for key, points in parts.items()
        if points is not None
    }


def from_openpose(value: Any) -> tuple[list[ndarray], tuple[int, int]]:
    """Bodies (18, 3) in pixels and the canvas (width, height); see `read_openpose`."""
    people, size = read_openpose(value)
    return [person.body for person in people], size


def read_openpose(value: Any) -> tuple[list[Figure], tuple[int, int]]:
    """People in pixels and the canvas (width, height) of OpenPose's JSON.

    Bodies have COCO's 18 or BODY_25's points, hands 21, faces 70 or 68. Points that are all
    between 0 and 1 are shares of the canvas, which some editors write. A list of one such object
    (ComfyUI's batches) is that object. Raises UserError for another layout. What is left out
    (feet, animals, further objects of a list) causes a note.
    """
    value = _only(value)
    size = _canvas(value)
    persons = _people(value)
    people = [_figure(person, number) for number, person in enumerate(persons)]

    if any(np.size(person.get("pose_keypoints_2d", ())) == 3 * 25 for person in persons):
        warnings.warn(
            "The pose has BODY_25's points; its feet and the middle of its hips are left out, "
            "because published pose controls know COCO's 18 points.",
            stacklevel=3,
        )
    people = _in_pixels(people, size)
    if not people:
        warnings.warn("the pose has no people, so its hint is empty.", stacklevel=3)
    elif not any(_is_seen(part, size) for person in people for part in _parts(person)):
        warnings.warn(
            f"no known point of the pose's {len(people)} people lies on its canvas of "
            f"{size[0]}×{size[1]} pixels, so its hint is empty.",
            stacklevel=3,
        )
    return people, size


def is_openpose(source: Any) -> bool:
    """Whether a hint is given as people: a dict, a list of dicts, or a path that ends in .json."""
    if isinstance(source, Mapping):
        return True
    if isinstance(source, list | tuple):
        return bool(source) and all(isinstance(item, Mapping) for item in source)
    is_path = isinstance(source, str) or hasattr(source, "__fspath__")
    return is_path and str(source).lower().endswith(".json")


def open_openpose(source: Any) -> tuple[list[Figure], tuple[int, int]]:
    """`read_openpose` of a dict, a list, or a file. Raises UserError."""
    if isinstance(source, Mapping | list | tuple):
        return read_openpose(source)
    path = Path(source)
    try:
        value = read_json(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as OpenPose's JSON ({error}).") from error
    try:
        return read_openpose(value)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


# ---------------------------------------------------------------- the parts of the JSON


def _only(value: Any) -> Mapping[str, Any]:
    if isinstance(value, list | tuple) and value:
        if len(value) > 1:
            warnings.warn(
                f"The pose is a list of {len(value)} canvases; the first is used. Give them one "
                "by one for the others.",
                stacklevel=4,
            )
        value = value[0]
    if not isinstance(value, Mapping):
        raise UserError(f"The pose is not OpenPose's JSON: {_LAYOUT}.")
    return value


def _canvas(value: Mapping[str, Any]) -> tuple[int, int]:
    size = []
    for key in ("canvas_width", "canvas_height"):
        side: Any = value.get(key)
        if isinstance(side, bool) or not _is_number(side) or not 1 <= side <= 2**31:
            raise UserError(
                f"The pose is not OpenPose's JSON: it needs {key}, a number of pixels, "
                f"not {str(side)[:40]}."
            )
        size.append(int(side))
    if size[0] * size[1] > pictures.max_pixels():
        raise UserError(
            f"The pose's canvas has {size[0]}×{size[1]} pixels; at most "
            f"{pictures.max_pixels():,} are drawn (ZEROCONV_MAX_PIXELS raises the limit)."
        )
    return size[0], size[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real)


def _people(value: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    people, animals = value.get("people"), value.get("animals")
    if animals and not people:
        raise UserError(
            "The pose holds animals and no people; animals are not drawn here, so give their "
            "drawn hint as a picture."
        )
    if animals:
        warnings.warn(
            "The pose's animals are left out: only people are drawn. Give the drawn hint as a "
            "picture to keep them.",
            stacklevel=4,
        )
    if not isinstance(people, list | tuple) or not all(isinstance(p, Mapping) for p in people):
        raise UserError(f"The pose is not OpenPose's JSON: {_LAYOUT}.")
    return people


def _figure(person: Mapping[str, Any], number: int) -> Figure:
    body = _points(person, "pose_keypoints_2d", (BODY, 25), number)
    if body is None:
        body = np.zeros((BODY, 3), np.float32)
    elif len(body) == 25:
        body = body[list(BODY_25)]

    face = _points(person, KEYS["face"], (FACE, 68), number)
    if face is not None and len(face) == 68:
        face = np.concatenate([face, np.zeros((2, 3), np.float32)])
    hands = [_points(person, KEYS[side], (HAND,), number) for side in ("left_hand", "right_hand")]
    return Figure(body, hands[0], hands[1], face)


def _points(
    person: Mapping[str, Any], key: str, counts: tuple[int, ...], number: int
) -> ndarray | None:
    """(count, 3) float32, 0 where not known; None where the part is absent or empty."""
    numbers = person.get(key)
    if numbers is None:
        return None
    needed = " or ".join(f"{count} × 3" for count in counts)
    try:
        points = np.asarray(numbers, np.float64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"The pose is not OpenPose's JSON: person {number} needs {needed} numbers in {key}."
        ) from error
    if not points.size:
        return None
    if len(points) not in counts:
        raise UserError(
            f"The pose is not OpenPose's JSON: person {number} has {points.size} numbers in "
            f"{key}; {needed} are needed."
        )
    if not np.isfinite(points).all() or np.abs(points).max() > _FARTHEST:
        raise UserError(
            f"The pose is not OpenPose's JSON: person {number} has a number in {key} that is no "
            f"pixel (above {_FARTHEST:,.0f}, or not finite)."
        )
    return np.where(points[:, 2:] > 0, points, 0).astype(np.float32)


def _in_pixels(people: list[Figure], size: tuple[int, int]) -> list[Figure]:
    """Shares of the canvas, where all known points are such, become pixels."""
    known = [part[part[:, 2] > 0, :2] for person in people for part in _parts(person)]
    known = [points for points in known if points.size]
    if not known or max(float(points.max()) for points in known) > 1.0:
        return people
    scale = np.array([*size, 1], np.float32)
    return [
        Figure(
            *(
                None if part is None else part * scale
                for part in (p.body, p.left_hand, p.right_hand, p.face)
            )  # type: ignore[arg-type]
        )
        for p in people
    ]


def _is_seen(part: ndarray, size: tuple[int, int]) -> bool:
    """Whether a known point of (n, 3) lies on the canvas (width, height)."""
    return bool(((part[:, 2] > 0) & (part[:, :2] >= 0).all(1) & (part[:, :2] < size).all(1)).any())


def _parts(person: Figure) -> list[ndarray]:
    parts = (person.body, person.left_hand, person.right_hand, person.face)
    return [part for part in parts if part is not None]
