"""The numbers of every mode at their full range: grey of 8 or 16 bits, or colours of 8, and alpha
beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.pictures.arrays import by_rows
from zeroconv.pictures.loading import Loaded, Note

Values = Literal["levels", "range", "classes"]

STEPS = {1: 255, 2: 85, 4: 17}  # by which Pillow multiplies greys of fewer than 8 bits
DIM = 16  # a brightest level below 255 / 16 is told


def grey_numbers(loaded: Loaded) -> ndarray | None:
    """The numbers of a grey picture (H, W) as its file has them, alpha left out; None for
    colours.
    """
    image = loaded.image
    if image.mode in ("LA", "La"):
        return np.asarray(image.convert("LA"))[..., 0]
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
        return None

    numbers = np.asarray(image)
    if image.mode == "I" and not loaded.signed:
        return numbers.view(np.uint32)
    return numbers.astype(np.uint16) if image.mode.startswith("I;16") else numbers


def alpha_of(loaded: Loaded) -> ndarray | None:
    """Opacity (H, W) uint8, None where every pixel is opaque."""
    image = loaded.image
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        full = {"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)
        alpha = np.asarray((image if full == image.mode else image.convert(full)).getchannel("A"))
    elif "transparency" in image.info:
        alpha = _keyed(loaded, image.info["transparency"])
    else:
        return None
    return None if bool((alpha == 255).all()) else alpha


def _keyed(loaded: Loaded, key: Any) -> ndarray:
    """Opacity where one colour, or a list for a palette, says what is transparent."""
    image = loaded.image
    if image.mode == "P":
        return np.asarray(image.convert("RGBA").getchannel("A"))
    if image.mode == "RGB" and isinstance(key, tuple) and len(key) == 3:
        # Pillow keeps the upper byte of 16-bit colours, and all of their key
        wanted = [k >> 8 if loaded.bits == 16 else k for k in key]
        hidden = (np.asarray(image) == wanted).all(-1)
    elif isinstance(key, int) and (numbers := grey_numbers(loaded)) is not None:
        small = loaded.bits in (2, 4)
        hidden = numbers == (key * STEPS[loaded.bits] if small else key)
    else:
        return np.full((image.height, image.width), 255, np.uint8)
    return np.where(hidden, 0, 255).astype(np.uint8)


def colours_of(image: Image.Image) -> ndarray:
    """A picture of any mode with colours as RGB (H, W, 3) uint8, alpha left out."""
    if image.mode in ("RGBA", "RGBa", "P", "PA"):
        # a palette's colours and those below transparent pixels are what the file says
        image = image.convert("RGBA")
        return np.asarray(image)[..., :3]
    if image.mode == "LAB":
        return np.asarray(_from_lab(image))
    return np.asarray(image.convert("RGB"))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    return ImageCms.applyTransform(image, _lab_to_rgb())  # type: ignore[return-value]


@lru_cache
def _lab_to_rgb() -> Any:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


def to_levels(numbers: ndarray, loaded: Loaded, values: Values, note: Note) -> ndarray:
    """Grey numbers (H, W) → levels of their whole range, uint8 (0–255) or uint16 (0–65535).

    values: "range" brings numbers of an unknown range to their own, as depth is; "levels" takes the
    narrowest usual range that holds them. What was chosen is noted. Raises UserError where no
    number is finite.
    """

    def noted(what: str) -> None:
        note(loaded.name, what)

    if numbers.dtype == np.uint8:
        levels = _of_bytes(numbers, values, noted)
    elif loaded.bits:
        levels = _of_16_bits(numbers, loaded.bits, values, noted)
    else:
        levels = _of_unknown(numbers, values, noted)
    return np.iinfo(levels.dtype).max - levels if loaded.inverted else levels


def _of_bytes(numbers: ndarray, values: Values, note: Callable[[str], None]) -> ndarray:
    most = int(numbers.max())
    if most == 1 and values == "levels":
        note("holds 0 and 1 alone: 1 is taken as white")
        return numbers * np.uint8(255)
    if 0 < most < 255 // DIM:
        note(
            f"is nearly black (its largest value is {most} of 255); class numbers are hints of "
            "segmentation alone"
        )
    return numbers


def _of_16_bits(
    numbers: ndarray, bits: int, values: Values, note: Callable[[str], None]
) -> ndarray:
    """16-bit and 12-bit files, and PPM's, which Pillow brings to 16 bits."""
    white = (1 << bits) - 1
    most = int(numbers.max())
    if 0 < most <= 255 and white > 4095:
        note("holds values up to 255 in 16 bits: they are taken as 8-bit levels")
        return _of_bytes(numbers.astype(np.uint8), values, note)
    if 0 < most < white // 4:
        if values == "range":
            note(
                f"holds values up to {most} of {white}: they are brought to their own range, "
                "larger is nearer"
            )
            return _stretched(numbers)
        note(
            f"is dark (its largest value is {most} of {white}); multiply it where it has fewer bits"
        )
    return _scaled(numbers, 0, white)


def _of_unknown(numbers: ndarray, values: Values, note: Callable[[str], None]) -> ndarray:
    """32-bit integers and floats, whose file does not say what white is."""
    numbers = _finite(numbers, note)
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and high <= 1 and numbers.dtype.kind == "f":
        return _scaled(numbers, 0, 1)
    if low == high == 0:
        return np.zeros(numbers.shape, np.uint8)

    if values == "range":
        note(
            f"holds numbers from {low:.6g} to {high:.6g}: they are brought to their own range, "
            "larger is nearer"
        )
        return _stretched(numbers)
    white = next((m for m in (1, 255, 65535) if low >= 0 and high <= m), 0)
    if not white:
        note(
            f"holds numbers from {low:.6g} to {high:.6g}: the smallest is taken as black, the "
            "largest as white"
        )
        return _stretched(numbers)
    note(
        f"holds numbers from {low:.6g} to {high:.6g}, and its file does not say what is white: "
        f"{white} is taken"
    )
    return _scaled(numbers, 0, white)


def _finite(numbers: ndarray, note: Callable[[str], None]) -> ndarray:
    if numbers.dtype.kind != "f":
        return numbers
    known = np.isfinite(numbers)
    if known.all():
        return numbers
    if not known.any():
        raise UserError("a picture of floats holds no finite number.")
    least = float(numbers[known].min())
    note(
        f"holds {int((~known).sum())} numbers that are NaN or infinite: they are taken as its "
        f"smallest, {least:.6g}"
    )
    return np.where(known, numbers, np.float32(least))


def _stretched(numbers: ndarray) -> ndarray:
    low, high = float(numbers.min()), float(numbers.max())
    return _scaled(numbers, low, high if high > low else math.nextafter(low, math.inf))


def _scaled(numbers: ndarray, low: float, high: float) -> ndarray:
    """low … high → 0 … 65535."""
    if low == 0 and high == 65535 and numbers.dtype == np.uint16:
        return numbers

    def scale(rows: slice) -> ndarray:
        share = (numbers[rows].astype(np.float64) - low) / (high - low)
        return np.clip(share, 0, 1) * 65535 + 0.5

    return by_rows(scale, numbers.shape, np.uint16)
