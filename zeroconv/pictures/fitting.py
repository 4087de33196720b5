"""Where a picture lies in a frame of another shape: A1111's three resize modes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy import ndarray

from zeroconv.errors import UserError

ResizeMode = Literal["stretch", "crop", "fill"]
RESIZE_MODES: tuple[ResizeMode, ...] = get_args(ResizeMode)

# A1111's names, its numbers, and the names of its older versions
_ALIASES: dict[str, ResizeMode] = {
    "just resize": "stretch",
    "0": "stretch",
    "crop and resize": "crop",
    "inner fit (scale to fit)": "crop",
    "scale to fit (inner fit)": "crop",
    "1": "crop",
    "resize and fill": "fill",
    "outer fit (shrink to fit)": "fill",
    "envelope (outer fit)": "fill",
    "2": "fill",
}


@dataclass(frozen=True)
class Fit:
    """A picture is cut to `box` (left, top, right, bottom, in its own pixels), scaled to `size`
    (width, height), and lies with its corner at `corner` (x, y) in the frame; below 0 it is cut.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]
    corner: tuple[int, int]


def resize_mode(name: str | int) -> ResizeMode:
    """The mode of a name: stretch, crop, fill, or one of A1111's, in any case, or its number.

    Raises UserError for another name.
    """
    text = "" if isinstance(name, bool) else str(name).strip().lower()
    if text in RESIZE_MODES:
        return text  # type: ignore[return-value]
    if text in _ALIASES:
        return _ALIASES[text]
    raise UserError(
        f"There is no resize mode {str(name)[:60]!r}; choose stretch (Just Resize), crop (Crop and "
        "Resize) or fill (Resize and Fill)."
    )


def fit_into(
    picture: tuple[int, int], frame: tuple[int, int], mode: ResizeMode, most: int = 64_000_000
) -> Fit:
    """Where a picture of a size lies in a frame; sizes are (width, height).

    stretch: the whole picture in the whole frame, its shape changed. crop: scaled until it covers
    the frame, what hangs over is cut evenly. fill: scaled until it lies inside, the rest is for the
    caller to fill. most: pixels of the scaled picture; a long strip that would have more is cut
    first, within a pixel of the same.
    """
    (width, height), (wide, high) = picture, frame
    box = (0, 0, width, height)
    if mode == "stretch" or width * high == height * wide:
        return Fit(box, frame, (0, 0))

    if mode == "fill":
        scale = min(wide / width, high / height)
        size = (max(1, min(wide, round(width * scale))), max(1, min(high, round(height * scale))))
        return Fit(box, size, ((wide - size[0]) // 2, (high - size[1]) // 2))

    scale = max(wide / width, high / height)
    size = (max(wide, round(width * scale)), max(high, round(height * scale)))
    if size[0] * size[1] > most:
        box = _middle(picture, (wide / scale, high / scale))
        return Fit(box, frame, (0, 0))
    return Fit(box, size, (-((size[0] - wide) // 2), -((size[1] - high) // 2)))


def _middle(picture: tuple[int, int], sides: tuple[float, float]) -> tuple[int, int, int, int]:
    spans = []
    for length, side in zip(picture, sides, strict=True):
        inner = min(length, max(1, math.floor(side + 0.5)))
        start = (length - inner) // 2
        spans.append((start, start + inner))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def border_colour(pixels: ndarray, invent: bool) -> ndarray:
    """What surrounds a picture (H, W) or (H, W, C): the median of its outermost pixels, a channel
    at a time, as A1111 fills; without `invent` the commonest of their colours, so that no new one
    comes in. (C,), or a number of shape ().
    """
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if invent:
        return np.median(edge, axis=0).astype(pixels.dtype)
    colours, counts = np.unique(edge, axis=0, return_counts=True)
    return colours[counts.argmax()]


def laid(
    pixels: ndarray, frame: tuple[int, int], corner: tuple[int, int], around: ndarray
) -> ndarray:
    """A scaled picture (H, W) or (H, W, C) in its frame (width, height): cut, or with a colour
    around it.
    """
    height, width = pixels.shape[:2]
    if (width, height) == frame:
        return pixels
    x, y = corner
    if x <= 0 and y <= 0 and width + x >= frame[0] and height + y >= frame[1]:
        return pixels[-y : frame[1] - y, -x : frame[0] - x]
    out = np.empty((frame[1], frame[0], *pixels.shape[2:]), pixels.dtype)
    out[:] = around
    out[y : y + height, x : x + width] = pixels
    return out
