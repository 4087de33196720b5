"""Pictures in requests and answers: base64, bare or as a data URL. Bounded before decoding."""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from typing import Any

from PIL import Image

from zeroconv.errors import UserError
from zeroconv.pictures import Loaded, load, open_mask, open_picture, picture_size
from zeroconv.serving.holding import count_pixels

_DATA_URL = re.compile(r"data:[a-zA-Z0-9.+/-]{0,60}(?:;[a-zA-Z0-9=.+-]{1,40}){0,4},")
_BYTES_A_PIXEL = 8  # no file of a picture within bounds is larger
FORMATS = ("PNG", "JPEG", "MPO", "WEBP")  # an MPO is a JPEG of a camera
_SIGNS = (b"\x89PNG", b"\xff\xd8", b"RIFF")  # how their files begin
PREVIEW = 256  # pixels of the longer side
THUMB = 256


def picture_bytes(text: str, name: str, pixels: int) -> bytes:
    """The file that a base64 text holds. Raises UserError for what is none, and for addresses and
    paths, which are never opened.
    """
    match = _DATA_URL.match(text[:300])
    if match is not None:
        if not match[0].endswith(";base64,"):
            raise UserError(f"{name} is a data URL without base64; send base64.")
        text = text[match.end() :]
    if not text:
        raise UserError(f"{name} is empty; send a picture as base64.")
    if len(text) > 4 * (_BYTES_A_PIXEL * pixels) // 3 + 100:
        raise UserError(f"{name} is too large for a picture of {pixels:,} pixels.")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = _lenient(text, name)
    if not content:
        raise UserError(f"{name} is empty; send a picture as base64.")
    if not content.startswith(_SIGNS):  # no other decoder sees it
        raise UserError(
            f"{name} is no PNG, JPEG or WebP file; send one as base64. Addresses and paths are not "
            "opened."
        )
    return content


def _lenient(text: str, name: str) -> bytes:
    """Base64 with line breaks, of its URL alphabet, or without padding."""
    try:
        plain = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise UserError(
            f"{name} is no base64; send PNG, JPEG or WebP as base64, bare or as a data URL. "
            "Addresses and paths are not opened."
        ) from None


def read_picture(text: str, name: str, pixels: int) -> Image.Image:
    """The decoded picture, upright, in the mode of its file. Raises UserError."""
    return read_loaded(text, name, pixels).image


def read_loaded(text: str, name: str, pixels: int) -> Loaded:
    """The same with what its file says of its numbers, as hints need it. Raises UserError."""
    content = picture_bytes(text, name, pixels)
    count_pixels(math.prod(picture_size(content, name, pixels)))
    loaded = load(content, name, pixels)
    if loaded.format not in FORMATS:
        raise UserError(f"{name} is a {loaded.format} file; send PNG, JPEG or WebP.")
    return loaded


def read_rgb(text: str, name: str, pixels: int) -> Image.Image:
    """A picture as RGB. Raises UserError."""
    return open_picture(read_loaded(text, name, pixels), name)


def read_mask(text: str, name: str, pixels: int) -> Image.Image:
    """A mask, L: white is what it is about. Raises UserError."""
    return open_mask(read_loaded(text, name, pixels), name)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def png_base64(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode("ascii")


def data_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{png_base64(image)}"


def thumbnail(image: Image.Image) -> bytes:
    """A WebP of at most `THUMB` pixels a side."""
    small = image.convert("RGB")
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=80)
    return buffer.getvalue()


def preview_jpeg(rgb: Any) -> bytes:
    """(3, h, w) in [0, 1] → a JPEG whose longer side has `PREVIEW` pixels."""
    pixels = (rgb * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    factor = PREVIEW / max(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=75)
    return buffer.getvalue()
