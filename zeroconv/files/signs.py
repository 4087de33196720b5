"""The sign by which a file tells that zeroconv wrote it, for each format that a command writes.

The word alone is no sign: other people's files name the program too, and a network protocol's
library has the same name.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

_HEAD, _EXIF_HEAD = 1 << 16, 1 << 12

_JSON = re.compile(rb'\s*(\[\s*)?\{\s*"zeroconv"\s*:\s*"')
_HTML = re.compile(rb"\s*<!doctype html>", re.IGNORECASE)
_GENERATOR = b'<meta name="generator" content="zeroconv">'
_PNG, _PNG_SIGNS = b"\x89PNG\r\n\x1a\n", (b"tEXtSoftware\0zeroconv", b"iTXtzeroconv\0")
_EXIF = b"zeroconv\0"  # the program's name, at the beginning of EXIF
_JPEG, _APP1 = b"\xff\xd8", b"Exif\0\0"
_SAFETENSORS = re.compile(rb'.{8}\s*\{\s*"__metadata__"\s*:\s*\{[^}]*?"zeroconv"\s*:', re.DOTALL)


def is_ours(path: str | os.PathLike) -> bool:
    """Whether zeroconv wrote a file, by its sign in the file; empty files count as ours, as nothing
    is lost with them.

    PNG, JPEG and WebP name the program that made them, a page its generator; a JSON report begins
    with the key "zeroconv"; safetensors have it in their metadata. Raises OSError.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD)
        if head.startswith(_PNG):
            return _is_our_png(file)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _is_our_webp(file)
    if size == 0:
        return True
    if head.startswith(_JPEG):
        return _EXIF in head[head.find(_APP1) :][:_EXIF_HEAD] and _APP1 in head
    if _HTML.match(head):
        return _GENERATOR in head
    return bool(_JSON.match(head) or _SAFETENSORS.match(head))


def _is_our_webp(file: BinaryIO) -> bool:
    """Whether its EXIF begins with our name; chunks of any length may come first, each of a name, a
    length and an even number of bytes.
    """
    file.seek(12)
    while len(start := file.read(8)) == 8:
        length = int.from_bytes(start[4:], "little")
        if start[:4] == b"EXIF":
            return _EXIF in file.read(min(length, _EXIF_HEAD))
        file.seek(length + length % 2, os.SEEK_CUR)
    return False


def _is_our_png(file: BinaryIO) -> bool:
    """Whether a text before its pixels has our name; texts of any length may come first."""
    file.seek(len(_PNG))
    while len(start := file.read(8)) == 8 and start[4:] not in (b"IDAT", b"IEND"):
        length = int.from_bytes(start[:4], "big")
        head = start[4:] + file.read(min(length, 32))
        if head.startswith(_PNG_SIGNS):
            return True
        file.seek(max(0, length - 32) + 4, os.SEEK_CUR)  # what is left of it, and its checksum
    return False
