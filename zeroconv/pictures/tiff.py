"""What must be known of a TIFF file beside what Pillow tells."""

from __future__ import annotations

import os
import struct
from typing import IO, Any

from PIL import Image

from zeroconv.errors import UserError

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_MOST = 4096  # entries; a page has about twenty
_PHOTOMETRIC, _TILE_WIDTH, _TILE_HEIGHT = 262, 322, 323


def check_directory(file: IO[bytes], head: bytes, name: str) -> None:
    """Raises UserError where the first page's entries add up to more than the file holds.

    Pillow keeps every entry's content, so entries that all name the same bytes would fill the
    memory.
    """
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return
    version = struct.unpack_from(f"{order}H", head, 2)[0]
    if version not in (42, 43):
        return

    big = version == 43
    (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", head, 8 if big else 4)
    length = file.seek(0, os.SEEK_END)
    entry, counted = (f"{order}HHQ", 8) if big else (f"{order}HHI", 2)
    try:
        file.seek(min(start, length))
        (count,) = struct.unpack(f"{order}Q" if big else f"{order}H", file.read(counted))
        if count > _MOST:
            raise UserError(
                f"{name} cannot be read as a picture: it is damaged (a page of {count} entries)."
            )
        entries = file.read(count * (20 if big else 12))
    except (struct.error, OverflowError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        return  # Pillow says what is wrong with it
    finally:
        file.seek(0)

    step = 20 if big else 12
    fields = [
        struct.unpack_from(entry, entries, i) for i in range(0, len(entries) - step + 1, step)
    ]
    if sum(_SIZES.get(kind, 1) * number for _, kind, number in fields) > length + step * len(
        fields
    ):
        raise UserError(
            f"{name} cannot be read as a picture: it is damaged (its entries are longer than the "
            "file)."
        )


def is_white_zero(picture: Image.Image) -> bool:
    """Whether a grey TIFF counts from white to black; Pillow turns that round for 8 bits and
    less.
    """
    tags: Any = getattr(picture, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC) == 0


def tile_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of the tiles of a TIFF, of which one is decoded at a time; of other pictures
    1, 1."""
    tags: Any = getattr(picture, "tag_v2", None) or {}
    sides = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_HEIGHT, 1)
    return sides if all(isinstance(side, int) and side > 0 for side in sides) else (1, 1)
