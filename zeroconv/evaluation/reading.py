"""Reading a condition back from pictures: drawn again where pixels tell, else read by a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from zeroconv.conditions import annotate, find, maps
from zeroconv.conditions.pose import draw_people
from zeroconv.evaluation import reader
from zeroconv.playroom import CLASSES

Read = Callable[[Sequence[Image.Image]], list[Any]]


def make_read(condition: str, judge: str = "auto", data: str = "playroom") -> tuple[Read, str]:
    """The function that reads pictures back, and the name of what it asks.

    judge: "playroom", the playroom's own reader; a folder or hub id of a learned annotator; "auto":
    the playroom's for playroom data, the offline annotator otherwise. Conditions that are drawn
    from pixels ask nobody.
    """
    entry = find(condition)
    if entry.draw is not None:
        return lambda images: [_draw(entry.name, image) for image in images], "drawn again"
    if judge == "playroom" or (judge == "auto" and data.startswith("playroom")):
        if entry.name == "person":
            return lambda images: [
                np.where(classes == CLASSES.index("person"), 255, 0).astype(np.uint8)
                for classes in reader.read(images).segmentation
            ], "playroom reader"
        return lambda images: list(getattr(reader.read(images), entry.name)), "playroom reader"

    backend = None if judge == "auto" else judge
    return lambda images: [
        _learned(entry.name, image, backend) for image in images
    ], backend or "offline annotator"


def _draw(condition: str, image: Image.Image) -> Any:
    if condition in ("shuffle", "inpaint"):  # what they keep is compared with the picture itself
        return np.asarray(image.convert("RGB"))
    return find(condition).decode(np.asarray(annotate(condition, image)))


def _learned(condition: str, image: Image.Image, backend: str | None) -> Any:
    from zeroconv import annotators

    read = annotators.read(condition, image, backend)
    if condition == "pose":
        return [person.keypoints for person in read]
    if condition == "depth":
        return maps.hint_to_depth(maps.relative_to_hint(read))
    return read


def as_picture(condition: str, read: Any, size: tuple[int, int]) -> Image.Image:
    """What was read, drawn as a hint: for people to look at."""
    entry = find(condition)
    if entry.name == "pose":
        return Image.fromarray(draw_people(read, size))
    drawn = {
        "depth": maps.depth_to_hint,
        "normal": maps.normal_to_hint,
        "segmentation": maps.classes_to_hint,
    }.get(entry.name, lambda hint: hint)(read)
    return Image.fromarray(np.asarray(drawn, np.uint8)).convert("RGB")
