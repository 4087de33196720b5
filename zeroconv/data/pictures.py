"""Pictures and hints of a data set, at 8 bits; what was done to many files alike is noted once."""

from __future__ import annotations

import warnings

from PIL import Image

from zeroconv import conditions, pictures
from zeroconv.pictures import Source, hint_to_rgb, picture_size

__all__ = ["picture_size", "read_alpha", "read_hint", "read_mask", "read_picture"]

_noted: set[str] = set()  # kinds of notes that this process has given


def read_picture(file: Source, name: object = None) -> Image.Image:
    """RGB, upright; what is transparent becomes white. `name`: what messages call it. Raises
    UserError."""
    return pictures.open_picture(file, name, note=note_once)


def read_hint(file: Source, condition: str | None, name: object = None) -> Image.Image:
    """A finished hint of a condition: RGB, or RGBA where it has a hole; 16-bit levels are rounded
    to 8.

    Raises UserError.
    """
    hint = conditions.open_hint(file, condition, name, note=note_once)
    if hint.mode == "I;16":
        note_once(str(name or file), "has 16-bit levels, of which a data set keeps 8 bits")
    return hint_to_rgb(hint)


def read_mask(file: Source, name: object = None) -> Image.Image:
    """Where the loss of a picture counts, grey: white fully, black not at all. Raises UserError."""
    return pictures.open_mask(file, name, note=note_once)


def read_alpha(file: Source, name: object = None) -> Image.Image | None:
    """The alpha of a picture as its mask; None where every pixel is opaque. Raises UserError."""
    return pictures.open_alpha(file, name, note=note_once)


def note_once(name: str, what: str) -> None:
    """Note what was done to a file; further ones of which the same is said, numbers aside, are not
    named."""
    kind = "".join(letter for letter in what if not letter.isdigit())
    if kind in _noted:
        return
    _noted.add(kind)
    warnings.warn(f"{name} {what}; of further files like it nothing is said.", stacklevel=2)
