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
from zeroconv.conditions.figure import Figure
from zeroconv.conditions.hints import pose_parts, shown
from zeroconv.conditions.openpose import is_openpose
from zeroconv.conditions.pose import draw_people
from zeroconv.errors import UserError
from zeroconv.pictures import Source, open_picture
from zeroconv.stopping import stop_if_asked

__all__ = ["LEARNED", "LearnedAnnotator", "annotate", "draw_pose", "fetch", "find_weights", "read"]


def read(
    condition: str,
    image: Source,
    backend: str | None = None,
    *,
    hands: bool = False,
    face: bool = False,
) -> Any:
    """What a network reads: softedge (H, W) uint8; pose a list of `Person`; person (H, W) uint8,
    255 where people are; depth (H, W) inverse, of unknown scale; normal (H, W, 3) unit vectors;
    segmentation (H, W) class ids.

    backend: None is the one that works offline, HED for softedge, PoseNet for pose, MediaPipe's for
    person; else a folder or hub id. hands, face: of a pose, whether these are read too. Raises
    UserError where a condition has none, or its weights have not been fetched.
    """
    name, pixels = conditions.find(condition).name, np.asarray(open_picture(image))
    stop_if_asked()
    if name == "softedge" and backend in (None, "hed"):
        from zeroconv.annotators.hed import softedge

        return softedge(pixels, *find_weights("hed"))
    if name == "person" and backend in (None, "selfie"):
        from zeroconv.annotators.person import person_mask

        weights = find_weights("selfie")[0]
        people = _read_pose(pixels, False, False)
        return person_mask(pixels, weights, [person.keypoints for person in people])
    if name == "pose" and backend in (None, "posenet"):
        return _read_pose(pixels, hands, face)
    if name not in ("depth", "normal", "segmentation") or backend is None:
        known = [a for a in LEARNED.values() if a.condition == name]
        how = (
            f"give --backend: {known[0].source} (licence: {known[0].licence})"
            if known
            else "it needs no network"
        )
        by = "" if backend is None else f" by {backend!r}"
        raise UserError(f"no network of ours reads {name} hints{by}; {how}.")
    from zeroconv.annotators import hub

    if name == "segmentation":
        return hub.segmentation(pixels, backend)[0]
    return {"depth": hub.depth, "normal": hub.normal}[name](pixels, backend)


def _read_pose(pixels: np.ndarray, hands: bool, face: bool) -> list[Any]:
    from zeroconv.annotators.landmarks import with_face, with_hands
    from zeroconv.annotators.pose import Person, people

    networks = find_weights("landmarks") if hands or face else []
    graph, weights = find_weights("posenet")
    persons = people(pixels, graph, weights)
    if not networks:
        return persons

    palm, hand, mesh = networks
    detailed = []
    for person in persons:
        stop_if_asked()
        figure = person.figure
        figure = with_hands(pixels, figure, palm, hand) if hands else figure
        figure = with_face(pixels, figure, mesh) if face else figure
        points = (figure.left_hand, figure.right_hand, figure.face)
        detailed.append(Person(person.keypoints, person.score, *points))
    return detailed


def annotate(
    condition: str, image: Source, backend: str | None = None, **params: Any
) -> Image.Image:
    """The hint of a picture, RGB PIL of the same size (RGBA for inpaint, whose hole is
    transparent).

    It is drawn without a network where that is possible and no backend is named, else read by one.
    image: a path, PIL picture, array or tensor, see `pictures.load`; for pose also OpenPose's JSON,
    a path that ends in .json or its content, of which all points are drawn. backend: see `read`.
    params: numbers of the condition, such as low and high of canny, or body, hands and face (1 or
    0) of pose. Raises UserError, see `read`, and TypeError for a parameter that the condition does
    not have.
    """
    if is_openpose(image):
        if backend is not None:
            raise UserError(
                f"OpenPose's JSON is drawn as it is, so the backend {backend} would read nothing; "
                "leave it out."
            )
        return conditions.annotate(condition, image, **params)
    entry, settings = conditions.to_draw(condition, quiet=backend is not None)
    params = {**settings, **params}
    if backend is None and entry.draw is not None:
        return conditions.annotate(entry.name, image, **params)
    image = open_picture(image)
    if entry.name == "segmentation" and backend is not None:
        return conditions.as_picture(_draw_classes(np.asarray(image), backend))
    if entry.name == "pose":
        asked = pose_parts(params)
        people = read("pose", image, backend, hands=asked["hands"], face=asked["face"])
        return draw_pose([shown(person.figure, asked) for person in people], image.size)
    reading = read(entry.name, image, backend)
    drawn = {"depth": maps.relative_to_hint, "normal": maps.normal_to_hint}.get(
        entry.name, lambda hint: hint
    )(reading)
    return conditions.as_picture(drawn)


def _draw_classes(pixels: np.ndarray, backend: str) -> np.ndarray:
    from zeroconv.annotators import hub

    classes, names = hub.segmentation(pixels, backend)
    if len(names) == len(maps.coco_colours()) and names[0] == "person":
        return maps.classes_to_hint(classes, maps.coco_colours())
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


def draw_pose(people: Sequence[np.ndarray | Figure], size: tuple[int, int]) -> Image.Image:
    """People, bodies (18, 3) or figures, as a pose hint of `size` (width, height)."""
    return Image.fromarray(draw_people(people, size))
