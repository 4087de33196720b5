"""Pictures written as PNG, JPEG or WebP with texts on how they were made; `pictures.carried` reads
them.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zeroconv.errors import UserError
from zeroconv.pictures.carried import EXIF_IFD, MAKER_NOTE, MARK, USER_COMMENT

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LARGEST = {"JPEG": 65_535, "WEBP": 16_383}  # pixels a side
JPEG_QUALITY = 95
SOFTWARE = 0x0131
_APP10 = b"\xff\xea"
_MOST_EXIF = 60_000  # bytes of a JPEG's EXIF; a segment has 65,533
_PART = 65_000  # bytes of ours in a segment


def format_of(path: str | Path) -> str:
    """PNG, JPEG or WEBP, by a file's suffix; PNG for streams and folders, which have none.

    Raises UserError for another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix and suffix not in SUFFIXES:
        raise UserError(
            f"{path} ends in {suffix}: pictures are saved as .png, .jpg or .webp, which carry how "
            "they were made; choose one of these."
        )
    return SUFFIXES.get(suffix, "PNG")


def check_size(size: tuple[int, int], path: str | Path) -> None:
    """Raise UserError where the format of `path` holds no picture of `size` (width, height)."""
    most = LARGEST.get(format_of(path))
    if most is not None and max(size) > most:
        raise UserError(
            f"{path} would be {size[0]}×{size[1]} pixels, and its format holds {most} a side; "
            "choose .png."
        )


def write_picture(
    image: Image.Image, path: Path, format: str, ours: str, parameters: str
) -> list[str]:
    """Write `image` (RGB) into `path`; returns what could not be kept, a sentence each.

    ours: JSON. parameters: A1111's text. PNG and WebP are lossless, JPEG has quality 95.
    """
    if format == "PNG":
        text = PngInfo()
        # first, so that a file of ours is known by its head
        text.add_itxt("zeroconv", ours)
        text.add_text("parameters", parameters)
        image.save(path, format="PNG", pnginfo=text)
        return []

    packed = zlib.compress(ours.encode("utf-8"))
    # as A1111 writes it: UTF-16 in the order of bytes that piexif has
    comment = b"UNICODE\0" + parameters.encode("utf-16-be", "replace")
    exif = Image.Exif()
    exif[SOFTWARE] = MARK.decode().rstrip("\0")  # the sign of our files
    inner = exif.get_ifd(EXIF_IFD)
    if format == "WEBP":
        inner[USER_COMMENT], inner[MAKER_NOTE] = comment, MARK + packed
        image.save(path, format="WEBP", lossless=True, exact=True, exif=exif)
        return []

    left_out = []
    if len(comment) <= _MOST_EXIF:
        inner[USER_COMMENT] = comment
    else:
        left_out = ["A1111's text is too long for a JPEG and left out; zeroconv's own is kept"]
    options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0}
    image.save(path, format="JPEG", exif=exif, extra=_segments(packed), **options)
    return left_out


def _segments(content: bytes) -> bytes:
    parts = [MARK + content[i : i + _PART] for i in range(0, len(content), _PART)]
    return b"".join(_APP10 + (len(part) + 2).to_bytes(2, "big") + part for part in parts)
