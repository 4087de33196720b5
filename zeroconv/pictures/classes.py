"""Class maps: numbers or colours, exact or refused."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from zeroconv.errors import UserError
from zeroconv.pictures.levels import STEPS, alpha_of, colours_of, grey_numbers
from zeroconv.pictures.loading import Loaded, Note

NO_CLASS = 255  # the usual number of pixels without one
_MOST = 256  # colours in one map
_CODE = np.array((65536, 256, 1), np.int32)


def class_map(loaded: Loaded, table: ndarray, classes: int, note: Note) -> ndarray:
    """A map of classes in their colours, (H, W, 3) uint8; transparent pixels and those without a
    class are black.

    table: every known colour (N, 3), the first `classes` of them for class numbers 0, 1, … Raises
    UserError for JPEG, for more colours than a map has classes, and for numbers that stand for no
    class.
    """
    if loaded.format in ("JPEG", "MPO"):
        raise UserError(
            f"{loaded.name} is a JPEG, which mixes the colours of classes; store class maps as PNG."
        )

    alpha = alpha_of(loaded)
    hidden = None if alpha is None else alpha < 128
    numbers = _numbers(loaded, table)
    if numbers is None:
        colours = colours_of(loaded.image)
        if hidden is not None:
            colours = np.where(hidden[..., None], 0, colours)  # what is not seen need be no class
        _check_exact(loaded, colours, table, note)
    else:
        if hidden is not None:
            numbers = np.where(hidden, numbers.dtype.type(NO_CLASS), numbers)
        ids = class_numbers(loaded, numbers, classes)
        colours = np.where((ids == NO_CLASS)[..., None], 0, table[np.minimum(ids, classes - 1)])
        note(
            loaded.name,
            "holds class numbers: they are drawn in ADE20K's colours, 0 for the first of "
            f"{classes} classes",
        )

    if hidden is not None:
        colours = np.where(hidden[..., None], 0, colours)
    return np.ascontiguousarray(colours, np.uint8)


def _numbers(loaded: Loaded, table: ndarray) -> ndarray | None:
    """Class numbers (H, W), where a picture holds these; None where it holds colours.

    A grey picture holds numbers. So does one of colours that are all grey, unless each of them
    stands for a class.
    """
    grey = grey_numbers(loaded)
    if grey is not None:
        return grey
    colours = colours_of(loaded.image)
    alike = bool((colours == colours[..., :1]).all())
    return colours[..., 0] if alike and len(_unknown(colours, table)) else None


def _codes(colours: ndarray) -> ndarray:
    """Different colours as numbers."""
    seen = np.zeros(1 << 24, bool)
    for start in range(0, len(colours), 256):
        seen[colours[start : start + 256] @ _CODE] = True
    return np.flatnonzero(seen)


def _unknown(colours: ndarray, table: ndarray) -> ndarray:
    return np.setdiff1d(_codes(colours), [*(table @ _CODE), 0])


def _check_exact(loaded: Loaded, colours: ndarray, table: ndarray, note: Note) -> None:
    count, unknown = len(_codes(colours)), len(_unknown(colours, table))
    if count > _MOST:
        raise UserError(
            f"{loaded.name} holds {count} colours, more than a class map has classes; store class "
            "maps as PNG, and resize them by nearest neighbour."
        )
    if loaded.format in ("WEBP", "AVIF") and unknown:
        raise UserError(
            f"{loaded.name} is a {loaded.format} with colours of no known class, perhaps mixed; "
            "store class maps as PNG."
        )
    if unknown:
        note(
            loaded.name,
            f"has {unknown} colours that are none of ADE20K's: they are kept, though its control "
            "may not know them",
        )


def class_numbers(loaded: Loaded, numbers: ndarray, classes: int) -> ndarray:
    """Grey numbers as class numbers (H, W); 255 stays, for none. Raises UserError for others."""
    if numbers.dtype.kind == "f" and not (
        np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()
    ):
        raise UserError(
            f"{loaded.name} holds fractions, which are no class numbers; store classes as whole "
            "numbers."
        )
    ids = numbers.astype(np.int64)
    if loaded.bits in STEPS and numbers.dtype == np.uint8:
        ids //= STEPS[loaded.bits]

    wrong = (ids < 0) | ((ids >= classes) & (ids != NO_CLASS))
    if wrong.any():
        raise UserError(
            f"{loaded.name} holds the class number {int(ids[wrong][0])}, and there are classes 0 "
            f"to {classes - 1} ({NO_CLASS}: none); where 0 means none, subtract 1, or store each "
            "class in its colour."
        )
    return ids
