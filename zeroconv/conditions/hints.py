"""Hints of a condition by its name: drawn from a picture, or opened where they are finished."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv import pictures
from zeroconv.conditions.registry import find, known
from zeroconv.errors import UserError
from zeroconv.pictures import UNKNOWN, HintRule, Note, Source, warn


def hint_rule(condition: str | None) -> HintRule:
    """What alpha and numbers of a condition's hints mean; `UNKNOWN` where the registry has none."""
    entry = known(condition)
    return UNKNOWN if entry is None else entry.opened


def open_hint(
    source: Source, condition: str | None, name: object = None, note: Note = warn
) -> Image.Image:
    """A finished hint of a condition (None: not known), a path, PIL picture or array, as its
    control is to see it.

    RGB; RGBA where it has a hole; "I;16" where it has 16-bit levels. Raises UserError, see
    `pictures.open_hint`.
    """
    return pictures.open_hint(source, hint_rule(condition), name, note=note)


def annotate(name: str, image: Source, **params: Any) -> Image.Image:
    """Draw the hint of a picture: RGB PIL of the same size (RGBA for inpaint, whose hole is
    transparent).

    image: a path, bytes, a PIL picture, a numpy array or a tensor, see `pictures.load`; `mask`, of
    inpaint, likewise, or an array (H, W) that is not 0 where to fill. Raises UserError for an
    unknown condition, one that cannot be drawn from pixels, or parameters out of range, and
    TypeError for a parameter that the condition does not have.
    """
    condition = find(name)
    if condition.draw is None:
        raise UserError(
            f"A {condition.name} hint cannot be drawn from a picture here: {condition.source}."
        )
    loaded = pictures.load(image)
    if params.get("mask") is not None:
        params["mask"] = _where(params["mask"])
    elif brings_hole(loaded, condition.name):
        warn(loaded.name, "has transparent pixels: they are the hole")
        return open_hint(loaded, condition.name)
    hint = condition.draw(np.asarray(pictures.open_picture(loaded)), **params)
    return as_picture(hint)


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
