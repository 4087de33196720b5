"""Filling a part of a picture: which part is generated, what is in the hole before, and how the new
part is put into the picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.generation import arguments

SIDES = ("left", "top", "right", "bottom")
CONTENTS = ("original", "fill", "noise")  # A1111's "masked content"
Box = tuple[int, int, int, int]  # left, top, right, bottom


# ---------------------------------------------------------------- outpainting


def check_expand(expand: Any) -> dict[str, int]:
    """Pixels a side, {} for none. Raises TypeError and UserError."""
    if expand is None:
        return {}
    if not isinstance(expand, Mapping):
        raise arguments.wrong_type("expand", expand, 'pixels a side: {"left": 128}')
    for side, pixels in expand.items():
        if side not in SIDES:
            raise UserError(f"expand has no side {str(side)[:40]!r}; sides are {', '.join(SIDES)}.")
        arguments.integer(f"expand[{side!r}]", pixels, 0, arguments.LARGEST, "pixels of that side")
    return {side: int(pixels) for side, pixels in expand.items() if pixels}


def expanded(
    picture: Image.Image, mask: Image.Image | None, sides: Mapping[str, int], unit: int
) -> tuple[Image.Image, Image.Image]:
    """A larger picture, the new ground filled from the old, and its mask, white on new ground and
    where `mask` is.

    Sides grow on to multiples of `unit` pixels, with a note.
    """
    left, top, right, bottom = (sides.get(side, 0) for side in SIDES)
    more_x = -(picture.width + left + right) % unit
    more_y = -(picture.height + top + bottom) % unit
    if more_x or more_y:
        warnings.warn(
            f"the expanded picture has {more_x} more columns and {more_y} more rows than asked "
            f"for, as sides are multiples of {unit} pixels.",
            stacklevel=2,
        )
    left, right = (left, right + more_x) if right or not left else (left + more_x, right)
    top, bottom = (top, bottom + more_y) if bottom or not top else (top + more_y, bottom)

    around = ((top, bottom), (left, right))
    known = np.pad(np.ones((picture.height, picture.width), bool), around)
    pixels = np.pad(np.asarray(picture), (*around, (0, 0)))
    given = np.zeros((picture.height, picture.width), np.uint8) if mask is None else mask
    ground = np.where(known, np.pad(np.asarray(given), around), 255).astype(np.uint8)
    return Image.fromarray(filled(pixels, known)), Image.fromarray(ground)


def filled(pixels: ndarray, known: ndarray) -> ndarray:
    """Pixels (H, W, 3) uint8, where not `known` (H, W) continued smoothly from those that are: the
    colour of the nearest level of a pyramid of means that has any.
    """
    smooth = _filled(pixels.astype(np.float32), known)
    return np.where(known[..., None], pixels, np.rint(smooth)).astype(np.uint8)


def _filled(pixels: ndarray, known: ndarray) -> ndarray:
    if known.all():
        return pixels
    if not known.any():
        return np.full_like(pixels, 127.5)
    height, width = known.shape
    half = ((width + 1) // 2, (height + 1) // 2)
    share = cv2.resize(known.astype(np.float32), half, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(pixels * known[..., None], half, interpolation=cv2.INTER_AREA)
    means = _filled(sums / np.maximum(share, 1e-6)[..., None], share > 0)
    smooth = cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(known[..., None], pixels, smooth)


# ---------------------------------------------------------------- only the masked part


def region_of(mask: Image.Image, padding: int) -> Box:
    """What is masked and so many pixels around it. Raises UserError for a mask without any."""
    box = Image.fromarray(((np.asarray(mask) >= 128) * 255).astype(np.uint8)).getbbox()
    if box is None:
        raise UserError(
            "only_masked: the mask is black, or no level of it reaches 128, so there is nothing to "
            "paint; paint it white."
        )
    left, top, right, bottom = box
    return (
        max(0, left - padding),
        max(0, top - padding),
        min(mask.width, right + padding),
        min(mask.height, bottom + padding),
    )


def of_shape(box: Box, size: tuple[int, int], frame: tuple[int, int]) -> Box:
    """The box, grown to the shape of `size` as far as the frame reaches; all (width, height)."""
    left, top, right, bottom = box
    ratio = size[0] / size[1]
    wide = min(frame[0], max(right - left, round((bottom - top) * ratio)))
    high = min(frame[1], max(bottom - top, round((right - left) / ratio)))
    left = min(max(0, left - (wide - (right - left)) // 2), frame[0] - wide)
    top = min(max(0, top - (high - (bottom - top)) // 2), frame[1] - high)
    return left, top, left + wide, top + high


# ---------------------------------------------------------------- putting back


def paste_weight(mask: Image.Image, blur: float) -> Tensor:
    """How much of the new picture is seen, (1, H, W) in [0, 1], never outside the mask: its edge
    is blurred inwards, by a Gaussian of σ = `blur` pixels.
    """
    weight = np.asarray(mask).astype(np.float32) / 255
    if blur and weight.any():
        soft = cv2.GaussianBlur(weight, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
        weight = weight * np.clip(2 * soft - 1, 0, 1)
        if weight.max() < 0.5:
            warnings.warn(
                f"mask_blur {blur:g} is wide for this mask: of what is painted "
                f"{weight.max():.0%} is seen at most; give less.",
                stacklevel=2,
            )
    return torch.from_numpy(weight)[None]


def pasted(made: Tensor, original: Tensor, weight: Tensor, box: Box | None) -> Tensor:
    """A new picture (3, h, w) in an original (3, H, W), all in [0, 1], at a box of it or all over
    it.
    """
    if box is not None:
        left, top, right, bottom = box
        part = nn.functional.interpolate(
            made[None], (bottom - top, right - left), mode="bicubic", antialias=True
        )
        made = original.clone()
        made[:, top:bottom, left:right] = part[0].clamp(0, 1)
    return torch.lerp(original, made, weight)
