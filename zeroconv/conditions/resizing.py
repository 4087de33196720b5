"""Resizing hints without inventing what a control never saw: grey lines, or classes between two
classes."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from zeroconv.pictures import UNKNOWN, ResizeMode, Source, fit_into, open_hint
from zeroconv.pictures.fitting import border_colour, laid


def resize_hint(
    hint: Source, size: tuple[int, int], rule: str | None = None, mode: ResizeMode = "stretch"
) -> Image.Image:
    """A hint at `size` (width, height), RGB; RGBA where it has a hole, "I;16" where it has 16-bit
    levels.

    rule: "lines": shrinking first widens lines by the scale, so that nearest-neighbour sampling
    cannot lose a one-pixel line; "nearest": samples only; "area": averages when shrinking, bilinear
    when growing. Without a rule, a picture of pure black and white counts as lines, any other as
    area. mode: what happens to another shape, see `pictures.fit_into`; "fill" continues the hint's
    border: its median, or where values must not be invented its commonest colour.
    """
    hint = with_hole(hint)
    if hint.size == size:
        return hint
    pixels = np.asarray(hint)
    if rule is None:
        rule = "lines" if bool(np.isin(pixels, (0, np.iinfo(pixels.dtype).max)).all()) else "area"

    fit = fit_into(hint.size, size, mode)
    left, top, right, bottom = fit.box
    scaled = _scaled(pixels[top:bottom, left:right], fit.size, rule)
    around = border_colour(pixels, invent=rule == "area")
    return Image.fromarray(np.ascontiguousarray(laid(scaled, size, fit.corner, around)))


def _scaled(pixels: np.ndarray, size: tuple[int, int], rule: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    pixels = np.ascontiguousarray(pixels)
    if (width, height) == size:
        return pixels
    if rule == "area":
        shrinks = size[0] * size[1] < width * height
        return cv2.resize(
            pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    if rule == "lines":
        window = (math.ceil(width / size[0]), math.ceil(height / size[1]))
        if max(window) > 1:
            pixels = cv2.dilate(pixels, np.ones((window[1], window[0]), np.uint8))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST_EXACT)


def with_hole(hint: Source) -> Image.Image:
    """RGBA where the hint has transparent pixels, its hole; "I;16" where it has 16-bit levels; else
    RGB."""
    if not isinstance(hint, Image.Image) or hint.mode not in ("RGB", "RGBA", "I;16"):
        hint = open_hint(hint, UNKNOWN, "the hint")
    if hint.mode == "I;16" or (hint.mode == "RGBA" and hint.getextrema()[3][0] < 128):  # type: ignore
        return hint
    return hint.convert("RGB")
