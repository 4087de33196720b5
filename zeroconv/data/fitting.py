"""Picture and hint to one size, cropped alike; a hint drawn from the picture where there is
none.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from numpy import ndarray
from PIL import Image

from zeroconv import conditions
from zeroconv.data.example import Example
from zeroconv.errors import UserError


class BrokenExample(UserError):
    """This one example cannot be used; a run sets it aside and goes on."""


class StorageError(UserError):
    """Where examples lie does not answer, whatever is there; `passing`: the next try may find it
    better.
    """

    passing = False


# of the storage or the process, not of a picture: what cannot be read now may be read by the next
# try
_FLEETING = {
    getattr(errno, name)
    for name in (
        "EIO",
        "ESTALE",
        "ETIMEDOUT",
        "ECONNRESET",
        "ECONNREFUSED",
        "ECONNABORTED",
        "ENOTCONN",
        "ENETDOWN",
        "ENETUNREACH",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "EREMOTEIO",
        "EAGAIN",
        "EBUSY",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
    )
    if hasattr(errno, name)
}
T = TypeVar("T")
PAUSES = (0.2, 2.0)  # seconds before an example is read again


def read_patiently(read: Callable[[], T]) -> T:
    """What `read` gives. Raises BrokenExample for a picture that is at fault itself. Where the
    storage is, it is tried again and then a UserError: a picture that was set aside stays so, in a
    cache that others use too.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except StorageError as error:
            if pause is None or not error.passing:
                raise
            time.sleep(pause)
        except UserError as error:
            if not _is_fleeting(error):
                raise BrokenExample(str(error)) from error
            if pause is None:
                raise UserError(
                    f"{error} This is the storage's failure and not the picture's, so it is not "
                    "set aside: give the same command once the storage answers, or remove the "
                    "picture."
                ) from error
            time.sleep(pause)
    raise AssertionError


def _is_fleeting(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FLEETING:
            return True
        error = error.__cause__
    return False


def fit(example: Example, size: int | tuple[int, int] | None, condition: str | None) -> Example:
    """The middle of picture and hint at `size` (width, height; one number: a square; None: as they
    are), and a hint of `condition`.

    A hint is drawn after scaling: lines stay as thin as at generation. A given hint is scaled by
    its condition's own rule, so that lines are not lost and classes not mixed. A mask is scaled by
    area averages. Raises BrokenExample if hint or mask and picture differ in shape, or the mask is
    black everywhere.
    """
    image, hint, mask = example.image, example.hint, example.mask
    for what, beside in (("hint", hint), ("mask", mask)):
        if beside is not None and _differ(beside.size, image.size):
            raise BrokenExample(
                f"{example.key}: the {what} is {beside.width}×{beside.height} pixels and its "
                f"picture {image.width}×{image.height}; both must have the same shape."
            )
    people, original = example.people, example.original
    if size is not None:
        frame = (size, size) if isinstance(size, int) else size
        original = original or _original(image.size, frame)
        people = (
            None
            if people is None
            else tuple(_to_frame(person, image.size, frame) for person in people)
        )
        if mask is not None:
            mask = middle(mask, frame).resize(frame, Image.Resampling.BOX)
        image = middle(image, frame).resize(frame, Image.Resampling.LANCZOS)
        hint = (
            None
            if hint is None
            else conditions.resize_hint(middle(hint, frame), frame, resizing_rule(condition))
        )
    if hint is None and condition is not None:
        hint = conditions.annotate(condition, image)
    if mask is not None and mask.getextrema()[1] == 0:
        raise BrokenExample(
            f"{example.key}: its mask is black in all that training sees of it, so there is "
            "nothing to learn; make some of it white, or take the picture away."
        )
    return replace(example, image=image, hint=hint, people=people, original=original, mask=mask)


def _differ(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes differ in aspect ratio, by more than rounding."""
    return abs(one[0] / one[1] / (other[0] / other[1]) - 1) > 0.02


def _original(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """What SDXL is trained with of a picture (Podell et al. 2023, section 2.2): height, width, and
    the crop's top and left after scaling.
    """
    left, top, right, _ = middle_box(size, frame)
    scale = frame[0] / (right - left)
    return size[1], size[0], round(top * scale), round(left * scale)


def _to_frame(person: ndarray, size: tuple[int, int], frame: tuple[int, int]) -> ndarray:
    """Joints (…, 3) in pixels of a picture → of its middle at `frame`; those outside count as
    unknown.
    """
    left, top, right, bottom = middle_box(size, frame)
    moved = person.copy()
    moved[:, :2] -= (left, top)
    moved[:, :2] *= (frame[0] / (right - left), frame[1] / (bottom - top))
    inside = ((moved[:, :2] >= 0) & (moved[:, :2] < frame)).all(-1)
    moved[:, 2] *= inside
    return moved


def middle_box(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest middle part (left, top, right, bottom) of a picture of `size` that has the shape
    of `frame`.
    """
    scale = min(size[0] / frame[0], size[1] / frame[1])
    width, height = (
        min(side, max(1, round(f * scale))) for side, f in zip(size, frame, strict=True)
    )
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def middle(image: Image.Image, frame: tuple[int, int]) -> Image.Image:
    box = middle_box(image.size, frame)
    return image if box == (0, 0, *image.size) else image.crop(box)


def resizing_rule(condition: str | None) -> str | None:
    """How hints of a condition are resized; None, a look at the pixels, for one that the registry
    does not know.
    """
    entry = conditions.known(condition)
    return None if entry is None else entry.resize
