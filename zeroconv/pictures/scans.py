"""How many passes a JPEG makes over its pixels.

A scan of an empty picture takes thirty bytes and the time of all its pixels. A file of a megabyte
can hold thirty thousand.
"""

from __future__ import annotations

from typing import IO

from PIL import Image

from zeroconv.errors import UserError

MOST_SCANS = 100  # encoders write about ten, optimisers of progressive files a few more
_START = b"\xff\xda"  # of a scan (ITU-T T.81, table B.1); coded data never holds it
_PART = 1 << 20


def check_scans(picture: Image.Image, file: IO[bytes], name: str) -> None:
    """Raises UserError for a JPEG of more scans than a picture can need."""
    if picture.format not in ("JPEG", "MPO"):
        return
    before = file.tell()
    file.seek(0)
    count, last = 0, b""
    while part := file.read(_PART):
        count += (last + part).count(_START)
        last = part[-1:]
    file.seek(before)
    if count > MOST_SCANS:
        raise UserError(
            f"{name} is a JPEG of {count} scans, and {MOST_SCANS} are read at most; save it anew."
        )
