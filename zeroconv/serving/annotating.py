"""Hints of pictures, and the people of poses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps

from zeroconv.errors import UserError

MOST_PEOPLE = 200  # of a pose


def draw(
    condition: str,
    picture: Image.Image,
    options: Mapping[str, float],
    size: tuple[int, int],
    resize: str = "crop",
) -> tuple[Image.Image, dict[str, Any] | None]:
    """The hint at `size` (width, height), and of a pose the people as OpenPose's JSON.

    Raises UserError for an unknown condition or option, and where a hint cannot be drawn.
    """
    from zeroconv.annotators.drawing import draw_hint
    from zeroconv.conditions import find

    name = find(condition).name
    params = checked_options(condition, options)
    if name == "pose":
        return _pose(picture, params, size, resize)
    return draw_hint(condition, picture, size, resize, **params), None


def checked_options(condition: str, options: Mapping[str, float]) -> dict[str, Any]:
    """Options by their names, whole where they are to be. Raises UserError for an unknown one."""
    from zeroconv.conditions import find

    entry = find(condition)
    known = {**entry.defaults, **entry.settings}
    params: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise UserError(f"a {entry.name} hint has no option {name[:40]!r}; known: {listed}.")
        is_integer = isinstance(known[name], int) and float(value).is_integer()
        params[name] = int(value) if is_integer else value
    return params


def _pose(
    picture: Image.Image, params: Mapping[str, Any], size: tuple[int, int], resize: str
) -> tuple[Image.Image, dict[str, Any]]:
    """The people, read from the picture at the size that is asked for."""
    from zeroconv import annotators
    from zeroconv.conditions.hints import pose_parts, shown
    from zeroconv.conditions.openpose import to_openpose

    if resize == "crop":
        picture = ImageOps.fit(picture, size, method=Image.Resampling.LANCZOS)
    elif resize == "stretch":
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    else:
        picture = ImageOps.pad(picture, size, method=Image.Resampling.LANCZOS)
    asked = pose_parts(params)
    read = annotators.read("pose", picture, None, hands=asked["hands"], face=asked["face"])
    people = [shown(person.figure, asked) for person in read]
    return annotators.draw_pose(people, size), to_openpose(people, size)


def pose_picture(pose: Any, pixels: int) -> Image.Image:
    """OpenPose's JSON → a hint at its canvas' size. Raises UserError, see `check_pose`."""
    from zeroconv.conditions import annotate

    check_pose(pose, pixels)
    return annotate("pose", pose)


def check_pose(pose: Any, pixels: int) -> None:
    """Raises UserError for what is not OpenPose's JSON, or has a larger canvas or more people."""
    from zeroconv.conditions.openpose import read_openpose

    people, (width, height) = read_openpose(pose)
    if len(people) > MOST_PEOPLE:
        raise UserError(f"the pose has {len(people)} people; this server draws {MOST_PEOPLE}.")
    if width * height > pixels:
        raise UserError(
            f"the pose's canvas has {width}×{height} pixels; this server draws {pixels:,}."
        )
