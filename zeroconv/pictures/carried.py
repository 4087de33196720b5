"""The texts that a picture's file carries on how it was made, whoever wrote them.

PNG has text chunks. JPEG and WebP have EXIF, whose UserComment holds A1111's text. What zeroconv
says of its own pictures is in JPEG's APP10 segments, which have room for hints, and in WebP in the
MakerNote of EXIF; both compressed by zlib behind `MARK`.
"""

from __future__ import annotations

import zlib
from typing import Any

from PIL import Image

from zeroconv.errors import UserError
from zeroconv.pictures.loading import _begin, _name, _reading
from zeroconv.pictures.sources import Source, opened

MARK = b"zeroconv\0"
MOST_BYTES = 64 << 20  # of one text, as Pillow bounds those of PNG together
EXIF_IFD, USER_COMMENT, MAKER_NOTE = 0x8769, 0x9286, 0x927C  # EXIF 2.3, tables 4 and 7
MAKE, MODEL = 0x010F, 0x0110  # where ComfyUI puts "prompt:{…}" and "workflow:{…}" of a WebP
KEYS = ("zeroconv", "parameters", "prompt", "workflow")


def carried(source: Source, name: object = None) -> dict[str, str]:
    """The texts in a file by `KEYS`: ours, A1111's, ComfyUI's two; those alone that are there.

    source: a path, bytes or a binary file. Raises UserError for what is no picture, and for texts
    that are damaged or larger than `MOST_BYTES`.
    """
    called = _name(source, name)
    with opened(source, called, None) as file:
        picture = _begin(file, called, None)
        if picture.format == "PNG":
            _reading(called, picture.load)  # texts may stand behind the pixels
            texts = {key: picture.info.get(key) for key in KEYS}
        else:
            texts = _reading(called, lambda: _of_exif(picture))
            segments = getattr(picture, "applist", ())
            parts = [s[len(MARK) :] for kind, s in segments if kind == "APP10" and s[:9] == MARK]
            if parts:
                texts["zeroconv"] = _inflated(b"".join(parts), called)
            elif isinstance(texts.get("zeroconv"), bytes):
                texts["zeroconv"] = _inflated(texts["zeroconv"], called)
    return {key: str(text) for key, text in texts.items() if isinstance(text, str)}


def _of_exif(picture: Image.Image) -> dict[str, Any]:
    exif = picture.getexif()
    inner = exif.get_ifd(EXIF_IFD)
    texts: dict[str, Any] = {}
    comment, note = inner.get(USER_COMMENT), inner.get(MAKER_NOTE)
    if isinstance(comment, bytes):
        texts["parameters"] = _comment(comment)
    if isinstance(note, bytes) and note.startswith(MARK):
        texts["zeroconv"] = note[len(MARK) :]
    for tag in (MAKE, MODEL):
        key, colon, text = str(exif.get(tag, "")).partition(":")
        if colon and key in ("prompt", "workflow"):
            texts[key] = text
    return texts


def _comment(content: bytes) -> str | None:
    """A UserComment: its first eight bytes name the encoding. UNICODE is UTF-16 in either order."""
    code, text = content[:8], content[8:]
    if code == b"UNICODE\0":
        high = text[::2].count(0) >= text[1::2].count(0)  # Latin letters have a zero there
        return text.decode("utf-16-be" if high else "utf-16-le", "replace").lstrip("\ufeff")
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        return text.rstrip(b"\0").decode("utf-8", "replace")
    return None


def _inflated(content: bytes, name: str) -> str:
    """A text compressed by zlib. Raises UserError where it is damaged or has no end."""
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(content, MOST_BYTES)
        if reader.unconsumed_tail:
            raise UserError(f"{name} carries a text of more than {MOST_BYTES:,} bytes; save it new")
        if not reader.eof:
            raise ValueError("it is cut short")
        return plain.decode("utf-8")
    except UserError:
        raise
    except (zlib.error, ValueError) as error:
        raise UserError(f"{name} carries damaged words on how it was made ({error}).") from error
