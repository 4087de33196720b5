"""Learned annotators: conditions that pixels alone do not tell, read from photographs by
networks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from zeroconv import conditions
from zeroconv.annotators.weights import LEARNED, LearnedAnnotator, fetch, find_weights
from zeroconv.conditions import maps
from zeroconv.conditions.pose import draw_people
from zeroconv.errors import UserError
from zeroconv.pictures import Source, open_picture

__all__ = ["LEARNED", "LearnedAnnotator", "annotate", "draw_pose", "fetch", "find_weights", "read"]


def read(condition: str, image: Source, backend: str | None = None) -> Any:
    """What a network reads: softedge (H, W) uint8; pose a list of `Person`; depth (H, W) inverse,
    of unknown scale; normal (H, W, 3) unit vectors; segmentation (H, W) class ids.

    backend: None is the one that works offline, HED for softedge and PoseNet for pose; else a
    folder or hub id. Raises UserError where a condition has none, or its weights have not been
    fetched.
    """
    name, pixels = conditions.find(condition).name, np.asarray(open_picture(image))
    if name == "softedge" and backend in (None, "hed"):
        from zeroconv.annotators.hed import softedge

        return softedge(pixels, *find_weights("hed"))
    if name == "pose" and backend in (None, "posenet"):
        from zeroconv.annotators.pose import people

        graph, weights = find_weights("posenet")
        return people(pixels, graph, weights)
    if name not in ("depth", "normal", "segmentation") or backend is None:
        known = [a for a in LEARNED.values() if a.condition == name]
        how = (
            f"give --backend: {known[0].source} (licence: {known[0].licence})"
            if known
            else "it needs no network"
        )
        raise UserError(f"no network reads {name} hints with the backend {backend!r}; {how}.")
    from zeroconv.annotators import hub

    if name == "segmentation":
        return hub.segmentation(pixels, backend)[0]
    return {"depth": hub.depth, "normal": hub.normal}[name](pixels, backend)


def annotate(
    condition: str, image: Source, backend: str | None = None, **params: Any
) -> Image.Image:
    """The hint of a picture, RGB PIL of the same size (RGBA for inpaint, whose hole is
    transparent).

    It is drawn without a network where that is possible and no backend is named, else read by one.
    image: a path, PIL picture, array or tensor, see `pictures.load`. backend: see `read`. params:
    numbers of the condition, such as low and high of canny. Raises UserError, see `read`, and
    TypeError for a parameter that the condition does not have.
    """
    entry = conditions.find(condition)
    if backend is None and entry.draw is not None:
        return conditions.annotate(condition, image, **params)
    image = open_picture(image)
    if entry.name == "segmentation" and backend is not None:
        return conditions.as_picture(_draw_classes(np.asarray(image), backend))
    found = read(entry.name, image, backend)
    if entry.name == "pose":
        return draw_pose([person.keypoints for person in found], image.size)
    drawn = {"depth": maps.relative_to_hint, "normal": maps.normal_to_hint}.get(
        entry.name, lambda hint: hint
    )(found)
    return conditions.as_picture(drawn)


def _draw_classes(pixels: np.ndarray, backend: str) -> np.ndarray:
    from zeroconv.annotators import hub

    classes, names = hub.segmentation(pixels, backend)
    colours = maps.ade20k_colours()
    if len(names) > len(colours):
        raise UserError(
            f"{backend} knows {len(names)} classes; class maps have colours for ADE20K's "
            f"{len(colours)}."
        )
    if len(names) < len(colours):
        warnings.warn(
            f"{backend} knows {len(names)} classes, not ADE20K's {len(colours)}: its colours mean "
            "other things than in hints of published ControlNets.",
            stacklevel=3,
        )
    return maps.classes_to_hint(classes, colours)


def draw_pose(people: Sequence[np.ndarray], size: tuple[int, int]) -> Image.Image:
    """People (18, 3) as a pose hint of `size` (width, height)."""
    return Image.fromarray(draw_people(people, size))
