"""Hints of a condition by its name: drawn from a picture, or opened where they are finished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv import pictures
from zeroconv.conditions.figure import Figure
from zeroconv.conditions.lookup import known, to_draw
from zeroconv.conditions.openpose import is_openpose, open_openpose
from zeroconv.conditions.pose import draw_people
from zeroconv.errors import UserError
from zeroconv.pictures import UNKNOWN, HintRule, Note, Source, warn
from zeroconv.stopping import stop_if_asked


def hint_rule(condition: str | None) -> HintRule:
    """What alpha and numbers of a condition's hints mean; `UNKNOWN` where the registry has none."""
    entry = known(condition)
    return UNKNOWN if entry is None else entry.opened


def open_hint(
    source: Source, condition: str | None, name: object = None, note: Note = warn
) -> Image.Image:
    """A finished hint of a condition (None: not known), a path, PIL picture or array, as its
    control is to see it.

    RGB; RGBA where it has a hole; "I;16" where it has 16-bit levels. OpenPose's JSON (a path that
    ends in .json, or its content) is drawn, where the condition is pose or not known. Raises
    UserError, see `pictures.open_hint`.
    """
    if is_openpose(source):
        return _drawn_people(condition, source, {})
    return pictures.open_hint(source, hint_rule(condition), name, note=note)


def annotate(name: str, image: Source, **params: Any) -> Image.Image:
    """Draw the hint of a picture: RGB PIL of the same size (RGBA for inpaint, whose hole is
    transparent).

    image: a path, bytes, a PIL picture, a numpy array or a tensor, see `pictures.load`; for pose
    also OpenPose's JSON, a path that ends in .json or its content; `mask`, of inpaint, likewise, or
    an array (H, W) that is not 0 where to fill. Raises UserError for an unknown condition, one that
    cannot be drawn from pixels, or parameters out of range, and TypeError for a parameter that the
    condition does not have.
    """
    if is_openpose(image):
        return _drawn_people(name, image, params)
    condition, settings = to_draw(name)
    params = {**settings, **params}
    if condition.draw is None:
        raise UserError(
            f"A {condition.name} hint cannot be drawn from a picture here: {condition.source}."
        )
    loaded = pictures.load(image)
    stop_if_asked()
    if params.get("mask") is not None:
        params["mask"] = _where(params["mask"])
    elif brings_hole(loaded, condition.name):
        warn(loaded.name, "has transparent pixels: they are the hole")
        return open_hint(loaded, condition.name)
    hint = condition.draw(np.asarray(pictures.open_picture(loaded)), **params)
    return as_picture(hint)


def _drawn_people(name: str | None, source: Any, params: dict[str, Any]) -> Image.Image:
    """OpenPose's JSON as a hint at its canvas' size. Raises UserError where the hint is no pose."""
    settings: dict[str, Any] = {}
    if name is not None and (entry := known(name)) is not None:
        if entry.name != "pose":
            given = "a dict" if isinstance(source, Mapping | list | tuple) else str(source)
            raise UserError(
                f"{given} is no picture, or damaged: OpenPose's JSON is read for pose hints alone, "
                f"and this is a {entry.name} hint."
            )
        settings = to_draw(name, quiet=True)[1]
    asked = pose_parts({"body": 1, "hands": 1, "face": 1} | settings | params)
    people, size = open_openpose(source)
    return as_picture(draw_people([shown(person, asked) for person in people], size))


def pose_parts(params: Mapping[str, Any]) -> dict[str, bool]:
    """Which of body, hands and face a pose hint shows: the body alone, unless `params` say so.

    Raises TypeError for another parameter, UserError for a value that is not 0 or 1.
    """
    asked = {"body": 1, "hands": 0, "face": 0}
    for name, value in params.items():
        if name not in asked:
            raise TypeError(f"pose has no parameter {name!r}; it has {', '.join(asked)}.")
        if value not in (0, 1):
            raise UserError(f"pose needs {name} as 0 or 1, not {str(value)[:40]}.")
    asked |= params
    if not any(asked.values()):
        raise UserError("a pose without body, hands and face is empty; set one of them to 1.")
    return {name: bool(value) for name, value in asked.items()}


def shown(figure: Figure, asked: Mapping[str, bool]) -> Figure:
    """The figure with the parts that `pose_parts` names."""
    return Figure(
        figure.body if asked["body"] else np.zeros_like(figure.body),
        figure.left_hand if asked["hands"] else None,
        figure.right_hand if asked["hands"] else None,
        figure.face if asked["face"] else None,
    )


def brings_hole(picture: Source, condition: str | None) -> bool:
    """Whether a picture has the hole already that hints of the condition need."""
    if not hint_rule(condition).hole:
        return False
    alpha = pictures.alpha_of(pictures.load(picture))
    return alpha is not None and bool((alpha < 128).any())


def _where(mask: Any) -> ndarray:
    """(H, W) bool."""
    if isinstance(mask, ndarray) and mask.ndim == 2:
        return mask != 0
    return np.asarray(pictures.open_mask(mask, "the mask")) >= 128


def as_picture(hint: ndarray) -> Image.Image:
    """A drawn hint (H, W), (H, W, 3) or (H, W, 4) uint8 as PIL: RGB, or RGBA where it has a
    hole.
    """
    picture = Image.fromarray(np.ascontiguousarray(hint))
    return picture if picture.mode == "RGBA" else picture.convert("RGB")
