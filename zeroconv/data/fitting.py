"""Picture and hint to one size, cropped alike; a hint drawn from the picture where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from numpy import ndarray
from PIL import Image

from zeroconv import conditions
from zeroconv.errors import UserError

if TYPE_CHECKING:
    from zeroconv.data.datasets import Example


class BrokenExample(UserError):
    """This one example cannot be used; a run sets it aside and goes on."""


def fit(example: Example, size: int | None, condition: str | None) -> Example:
    """The middle square of picture and hint at `size` × `size` pixels (None: as they are), and a hint of `condition`.

    A hint is drawn after scaling: lines stay as thin as at generation. A given hint is scaled by its condition's own
    rule, so that lines are not lost and classes not mixed. Raises BrokenExample if hint and picture differ in shape.
    """
    image, hint = example.image, example.hint
    if hint is not None and abs(hint.width / hint.height - image.width / image.height) > 0.02:
        raise BrokenExample(
            f"{example.key}: the hint is {hint.width}×{hint.height} pixels and its picture "
            f"{image.width}×{image.height}; both must have the same shape."
        )
    people = example.people
    if size is not None:
        people = None if people is None else tuple(_to_square(person, image.size, size) for person in people)
        image = square(image).resize((size, size), Image.Resampling.LANCZOS)
        hint = None if hint is None else conditions.resize_hint(square(hint), (size, size), resizing_rule(condition))
    if hint is None and condition is not None:
        hint = conditions.annotate(condition, image)
    return replace(example, image=image, hint=hint, people=people)


def _to_square(person: ndarray, size: tuple[int, int], side: int) -> ndarray:
    """Joints (…, 3) in pixels of a picture → of its middle square at `side`; those outside count as unknown."""
    short = min(size)
    moved = person.copy()
    moved[:, :2] -= ((size[0] - short) // 2, (size[1] - short) // 2)
    moved[:, :2] *= side / short
    inside = ((moved[:, :2] >= 0) & (moved[:, :2] < side)).all(-1)
    moved[:, 2] *= inside
    return moved


def square(image: Image.Image) -> Image.Image:
    """The middle square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image if image.width == image.height else image.crop((left, top, left + side, top + side))


def resizing_rule(condition: str | None) -> str | None:
    """How hints of a condition are resized; None, a look at the pixels, for one that the registry does not know."""
    known = {name: c for c in conditions.CONDITIONS.values() for name in (c.name, *c.aliases)}
    return known[condition].resize if condition in known else None
