"""Picture files of kinds that Pillow does not write."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy import ndarray


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(numbers: ndarray, bits: int, colour: int, **chunks: bytes) -> bytes:
    """A PNG of any depth and colour type. numbers: (H, W) or (H, W, channels), as they stand in the
    file.
    """
    height, width = numbers.shape[:2]
    flat = numbers.reshape(height, -1).astype(np.uint16)
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    lines = np.packbits(
        ((flat[..., None] >> shifts) & 1).reshape(height, -1).astype(np.uint8), axis=1
    )
    raw = b"".join(b"\x00" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    between = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + between
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 16)))
        + chunk(b"IEND", b"")
    )


def tiff(entries: list[tuple[int, int, int, int]], content: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of one page: (tag, type, count, value or offset)."""
    mark = b"II" if order == "<" else b"MM"
    start = 8 + len(content)
    body = b""
    for tag, kind, count, value in sorted(entries):
        short = kind == 3 and count == 1
        body += struct.pack(f"{order}HHI", tag, kind, count)
        body += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    head = mark + struct.pack(f"{order}HI", 42, start)
    return head + content + struct.pack(f"{order}H", len(entries)) + body + bytes(4)


def grey_tiff(
    numbers: ndarray, bits: int, kind: int = 1, photometric: int = 1, order: str = "<"
) -> bytes:
    """An uncompressed grey TIFF (H, W). kind: 1 unsigned, 2 signed, 3 floats. photometric 0: white
    is zero.
    """
    content = numbers.astype(numbers.dtype.newbyteorder(order)).tobytes()
    entries = [
        (256, 4, 1, numbers.shape[1]),
        (257, 4, 1, numbers.shape[0]),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, numbers.shape[0]),
        (279, 4, 1, len(content)),
        (339, 3, 1, kind),
    ]
    return tiff(entries, content, order)
