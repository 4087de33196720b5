"""How a camera was held, read from EXIF or XMP without reading anything else of them."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image

_TAG = 0x0112
ORIENTATION_KEYS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # in PIL's `info`
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(picture: Image.Image) -> int:
    """1 to 8; 1 where nothing is said or it cannot be read. Above 4 the picture lies on its side.

    Pillow turns TIFF by itself.
    """
    if picture.format == "TIFF":
        return 1
    if picture.format == "PNG" and not any(
        key in picture.info for key in ("exif", "Raw profile type exif")
    ):
        picture.load()  # its EXIF may stand behind its pixels
    turn = of_exif(_exif(picture.info))
    if turn is not None:
        return turn
    xmp = picture.info.get("xmp", picture.info.get("XML:com.adobe.xmp", b""))
    match = _XMP.search(xmp.encode() if isinstance(xmp, str) else bytes(xmp))
    return int(match[1]) if match else 1


def _exif(info: dict[Any, Any]) -> bytes:
    if isinstance(info.get("exif"), bytes):
        return info["exif"]
    # ImageMagick's way in PNG: a line of words, a length, hex digits
    text = info.get("Raw profile type exif")
    if not isinstance(text, str):
        return b""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def of_exif(exif: bytes) -> int | None:
    """The orientation in a block of EXIF, None where it has none."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for offset in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, offset)
        if tag == _TAG and kind == 3 and 1 <= value <= 8:
            return value
    return None
