"""Hints and masks as tensors, whatever they are given as."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zeroconv import pictures
from zeroconv.conditions import known, open_hint, resize_hint
from zeroconv.conditions.openpose import is_openpose, open_openpose
from zeroconv.conditions.resizing import with_hole
from zeroconv.errors import UserError

Cut = tuple[tuple[int, int], tuple[int, int, int, int]]  # of a larger picture (w, h), a box
WITH_PICTURE = 6  # channels of a hint with a picture beside it, −1 in its hole
ROUNDED = 16  # pixels by which sides of one shape differ where both are rounded
_MASKS = "is a picture, or a tensor or array (H, W) of numbers from 0 to 1"


def hint_size(hint: Any) -> tuple[int, int]:
    """Width and height of a hint as a user gives it. Raises UserError for what is no picture."""
    if isinstance(hint, Tensor):
        if hint.ndim < 2:
            raise UserError(f"A hint tensor has shape {tuple(hint.shape)}; (3, H, W) is needed.")
        return hint.shape[-1], hint.shape[-2]
    if is_openpose(hint):
        return open_openpose(hint)[1]
    return pictures.picture_size(hint, _name(hint, "the hint"))


def hint_tensor(
    hint: Any,
    size: tuple[int, int],
    condition: str | None,
    channels: int = 3,
    resize: str = "stretch",
    cut: Cut | None = None,
) -> Tensor:
    """A hint as a control takes it, float32 (3, H, W) in [0, 1], −1 in a hole.

    channels: that the control reads; of others than 3, only a tensor (channels, H, W) will do.
    hint: a tensor (3, H, W) of just that, or a picture (`pictures.load` says which), read and
    brought to `size` (width, height) by its condition's rules; resize: see `Control`. cut: it shows
    a larger picture, of which a box is taken. Raises UserError.
    """
    mode = pictures.resize_mode(resize)
    if isinstance(hint, Tensor) and hint.is_floating_point():
        hint = _checked(hint, size if cut is None else cut[0], channels)
        return hint if cut is None else _cut_tensor(hint, size, cut[1])
    if isinstance(hint, Tensor) and hint.ndim == 4 and len(hint) == 1:
        hint = hint[0]

    picture = open_hint(hint, condition, _name(hint, "the hint"))
    if cut is not None:
        shown = resize_hint(picture, cut[0], _rule(condition), mode)
        picture = resize_hint(shown.crop(cut[1]), size, _rule(condition))
    elif picture.size != size:
        done = {"stretch": "", "crop": ", its overhang cut", "fill": ", its border continued"}
        warnings.warn(
            f"The hint is {picture.width}×{picture.height} pixels and was resized to "
            f"{size[0]}×{size[1]}{done[mode]}.",
            stacklevel=2,
        )
        picture = resize_hint(picture, size, _rule(condition), mode)
    return torch.from_numpy(np.ascontiguousarray(pictures.to_numbers(with_hole(picture))))


def _checked(hint: Tensor, size: tuple[int, int], channels: int) -> Tensor:
    tensor = hint[0] if hint.ndim == 4 and len(hint) == 1 else hint
    if tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor.expand(3, -1, -1) if channels == 3 else tensor
    if channels == WITH_PICTURE and tensor.ndim == 3 and len(tensor) == 3:
        channels = 3  # without the picture beside it
    if tensor.ndim != 3 or tuple(tensor.shape) != (channels, size[1], size[0]):
        needed = f"({channels}, {size[1]}, {size[0]})"
        raise UserError(f"A hint tensor has shape {tuple(hint.shape)}; {needed} is needed.")

    low, high = float(tensor.min()), float(tensor.max())
    if not -1 <= low <= high <= 1:  # nor NaN
        raise UserError(
            f"A hint tensor holds numbers from {low:.6g} to {high:.6g}; 0 to 1 are needed, "
            "and −1 in the hole of an inpaint hint."
        )
    return tensor.float()


def _rule(condition: str | None) -> str | None:
    """How hints of a condition are resized; None: as they look."""
    entry = known(condition)
    return None if entry is None else entry.resize


def _cut_tensor(hint: Tensor, size: tuple[int, int], box: tuple[int, int, int, int]) -> Tensor:
    left, top, right, bottom = box
    part = hint[None, :, top:bottom, left:right]
    return torch.nn.functional.interpolate(part, (size[1], size[0]), mode="nearest-exact")[0]


def mask_tensor(
    mask: Any, size: tuple[int, int], cut: Cut | None = None, name: str = "mask"
) -> Tensor | None:
    """Where a control acts, (1, 1, H, W) in [0, 1] at `size` (width, height), by area averages;
    None: everywhere. cut: it shows a larger picture, of which a box is taken. name: what messages
    call it.

    Raises UserError for what is no picture, and for numbers out of range.
    """
    if mask is None:
        return None
    if isinstance(mask, Tensor) and mask.is_floating_point():
        if mask.ndim != 2 or not 0 <= float(mask.min()) <= float(mask.max()) <= 1:
            raise UserError(f"A {name} {_MASKS}; this tensor has shape {tuple(mask.shape)}.")
        mask = mask[None, None].float()
        if cut is not None:
            mask = torch.nn.functional.interpolate(mask, (cut[0][1], cut[0][0]), mode="area")
            left, top, right, bottom = cut[1]
            mask = mask[..., top:bottom, left:right]
        return torch.nn.functional.interpolate(mask, (size[1], size[0]), mode="area")

    picture = pictures.open_mask(mask, _name(mask, f"the {name}"))
    _note_stretched(picture.size, size if cut is None else cut[0], name)
    if cut is not None:
        picture = picture.resize(cut[0], Image.Resampling.BOX).crop(cut[1])
    pixels = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
    return torch.from_numpy(pixels / 255)[None, None]


def _note_stretched(given: tuple[int, int], shown: tuple[int, int], name: str) -> None:
    """A note where a region has another shape than what it is laid on, (width, height): where it
    acts is moved. Sides rounded to multiples of 8 are no other shape.
    """
    wide, high = shown
    moved = max(abs(wide - given[0] * high / given[1]), abs(high - given[1] * wide / given[0]))
    if moved >= ROUNDED:
        warnings.warn(
            f"The {name} is {given[0]}×{given[1]} pixels and was stretched to {wide}×{high}; give "
            "one of the output's shape.",
            stacklevel=2,
        )


def _name(source: Any, otherwise: str) -> str | None:
    """What messages call it: a path is its own name."""
    return None if isinstance(source, str) or hasattr(source, "__fspath__") else otherwise
