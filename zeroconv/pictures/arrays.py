"""Numpy arrays and torch tensors as pictures, and pictures as numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.pictures.sources import check_pixels

_SHAPES = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
_TYPES = "uint8, uint16, bool, or floats from 0 to 1"
_AT_A_TIME = 1 << 20  # pixels


def from_array(array: ndarray, name: str, limit: int | None = None) -> tuple[Image.Image, str, int]:
    """An array as a PIL picture, its name, and the bits of its numbers.

    array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16, bool, or floats from 0
    to 1. Grey arrays keep 16 bits, colours 8. Raises UserError for other shapes, types and ranges.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UserError(
            f"{name} is an array of shape {array.shape}; {_SHAPES} is needed{_mend(array.shape)}."
        )
    check_pixels((array.shape[1], array.shape[0]), name, limit)
    return _picture(array, name)


def _mend(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return ": np.moveaxis(array, 0, -1) brings its channels last"
    if len(shape) == 4:
        return ": give one picture of the batch, array[0]"
    return ""


def _picture(array: ndarray, name: str) -> tuple[Image.Image, str, int]:
    grey = array.ndim == 2
    if array.dtype == bool:
        levels = array.astype(np.uint8) * np.uint8(255)
        return Image.fromarray(levels), name, 1
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array)), name, 8
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        native = np.ascontiguousarray(array, np.uint16)
        return Image.fromarray(native if grey else to_bytes(native)), name, 16
    if array.dtype.kind == "f":
        return Image.fromarray(_of_floats(array, name, grey)), name, 16
    if grey and array.dtype.kind in "iu":
        return _of_integers(array, name), name, 0
    raise UserError(f"{name} is an array of {array.dtype}; {_TYPES} are needed.")


def _of_floats(array: ndarray, name: str, grey: bool) -> ndarray:
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise UserError(
            f"{name} is an array that holds NaN or infinity; floats from 0 to 1 are needed."
        )
    if low < 0 or high > 1:
        raise UserError(
            f"{name} is an array of floats from {low:.6g} to {high:.6g}; bring them to 0 to 1"
            f"{' (divide by 255)' if low >= 0 and 1 < high <= 255 else ''}."
        )
    most = 65535 if grey else 255
    return (array.astype(np.float32) * most + 0.5).astype(np.uint16 if grey else np.uint8)


def _of_integers(array: ndarray, name: str) -> Image.Image:
    """Grey numbers of other integer types, for class numbers; their range is looked at where they
    are used."""
    if int(array.min()) < -(1 << 31) or int(array.max()) >= 1 << 31:
        raise UserError(
            f"{name} is an array of {array.dtype} with numbers beyond 32 bits; {_TYPES} are needed."
        )
    return Image.fromarray(array.astype(np.int32))


def from_tensor(tensor: Any, name: str, limit: int | None = None) -> tuple[Image.Image, str, int]:
    """A torch tensor (H, W), (1, H, W), (3, H, W) or (4, H, W) likewise: its channels come first.
    Raises UserError."""
    try:
        plain = tensor.detach().cpu()
        array = (plain.float() if plain.is_floating_point() else plain).numpy()
    # without values, sparse, complex
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UserError(f"{name} is a tensor that cannot be read ({error}).") from error
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return from_array(np.moveaxis(array, 0, -1), name, limit)
    if array.ndim != 2:
        raise UserError(
            f"{name} is a tensor of shape {tuple(array.shape)}; (H, W) or (1, 3 or 4, H, W) is "
            "needed."
        )
    return from_array(array, name, limit)


def by_rows(work: Callable[[slice], ndarray], shape: tuple[int, ...], dtype: DTypeLike) -> ndarray:
    """An array of `shape`, some rows at a time, so that wide numbers in between take little
    memory.
    """
    out = np.empty(shape, dtype)
    step = max(1, _AT_A_TIME // max(1, shape[1]))
    for start in range(0, shape[0], step):
        rows = slice(start, start + step)
        out[rows] = work(rows)
    return out


def to_bytes(levels: ndarray) -> ndarray:
    """uint16 levels as uint8, rounded: 65535 becomes 255."""
    return by_rows(
        lambda rows: (levels[rows].astype(np.uint32) + 128) // 257, levels.shape, np.uint8
    )


def to_numbers(hint: Image.Image) -> ndarray:
    """A hint as `open_hint` gives it → float32 (3, H, W) in [0, 1]; −1 where an RGBA hint has its
    hole."""
    pixels = np.asarray(hint)
    if pixels.ndim == 2:
        most = 65535 if pixels.dtype.itemsize == 2 else 255
        return np.repeat((pixels.astype(np.float32) / most)[None], 3, 0)
    colours = np.moveaxis(pixels[..., :3].astype(np.float32) / 255, -1, 0)
    return (
        np.where(pixels[..., 3] < 128, np.float32(-1), colours) if pixels.shape[2] == 4 else colours
    )
