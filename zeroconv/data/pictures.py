"""Pictures and hints from files or bytes: upright, and without what is transparent, unless that says something."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from zeroconv.conditions import CONDITIONS
from zeroconv.errors import UserError

_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # of EXIF: what a camera that was turned writes


def read_picture(file: Path | IO[bytes], name: object = None) -> Image.Image:
    """RGB, turned as its EXIF says; what is transparent becomes white. `name`: what errors call it. Raises
    UserError."""
    return on_white(_read(file, name))


def read_hint(file: Path | IO[bytes], condition: str | None, name: object = None) -> Image.Image:
    """As `read_picture`; where the condition's hints have a hole, RGBA, and its transparent pixels are the hole."""
    hint = _read(file, name)
    holed = any(c.channels == 4 for c in CONDITIONS.values() if condition in (c.name, *c.aliases))
    return hint.convert("RGBA") if holed and _is_layer(hint) else on_white(hint)


def on_white(picture: Image.Image) -> Image.Image:
    if not _is_layer(picture):
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def picture_size(file: Path | IO[bytes], name: object = None) -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone. Raises UserError."""
    try:
        with Image.open(file) as opened:
            lying = opened.getexif().get(_ORIENTATION) in _LYING
            return opened.size[::-1] if lying else opened.size
    except _ERRORS as error:
        raise UserError(f"{name or file} cannot be read as a picture ({error}).") from error


def _read(file: Path | IO[bytes], name: object) -> Image.Image:
    try:
        with Image.open(file) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened)
    except FileNotFoundError as error:
        raise UserError(f"{name or file} is missing.") from error
    except _ERRORS as error:
        raise UserError(f"{name or file} cannot be read as a picture ({error}).") from error


def _is_layer(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
