"""Mutations of bytes and of JSON values, and inputs that programs are known to stumble over."""

from __future__ import annotations

import copy
import struct
import zlib
from random import Random
from typing import Any

NUMBERS = (0, -1, 1, 2, 7, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32, 2**63, 10**30, -(10**30))
TEXTS = (
    "",
    " ",
    "..",
    "../escape",
    "../../escape.png",
    "/tmp/zeroconv-fuzz-escape.png",
    "C:\\x.png",
    "a\\..\\b.png",
    "nul\0.png",
    "\ud800",
    "\u202e.png",
    "é.png",
    "e\u0301.png",
    "CON",
    "x" * 300,
    "-rf",
    "{0..99999999}",
    "memory://x",
    "file:///etc/passwd",
    "NaN",
    "1e999",
    "~",
    "~/x",
    "\ufeff",
    "\r\n",
    "<script>",
    "%s%n",
    "true",
    "null",
)
BYTES = (
    b"",
    b"\0",
    b"\0" * 4096,
    b"\xff" * 64,
    b"<!DOCTYPE html>",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"version https://git-lfs",
)


def value(rng: Random, depth: int = 0) -> Any:
    """A hostile JSON value."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice((0.5, -0.5, 1e308, -1e308, float("nan"), float("inf"), 1e-320))
    if kind in (2, 3):
        return rng.choice(TEXTS)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind == 5:
        return rng.choice(([], {}, [[]], {"": None}))
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(rng.choice(TEXTS)): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def tree(rng: Random, data: Any, times: int | None = None) -> Any:
    """A copy of a JSON value with some of its places replaced, removed, doubled or renamed."""
    data = copy.deepcopy(data)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3, 6))):
        places = list(_places(data))
        if not places:
            return value(rng)
        holder, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[key : key + 1]) * rng.choice((1, 3, 50)))
        elif kind == 3:
            holder[key] = [holder[key]]
        elif kind == 4 and isinstance(holder[key], int | float):
            holder[key] = rng.choice(
                (*NUMBERS, holder[key] + 1, -holder[key], float(holder[key]), str(holder[key]))
            )
        else:
            holder[key] = value(rng)
    return data


def _places(data: Any):
    """Every (holder, key) of a nested value, at most a few thousand."""
    stack, seen = [data], 0
    while stack and seen < 2_000:
        holder = stack.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder))
        for key in list(keys)[:200]:
            seen += 1
            yield holder, key
            if isinstance(holder[key], dict | list):
                stack.append(holder[key])


def raw(rng: Random, data: bytes, times: int | None = None) -> bytes:
    """A copy of some bytes with bits flipped, pieces cut out, doubled, overwritten, or its end
    missing.
    """
    body = bytearray(data)
    for _ in range(times or rng.choice((1, 1, 2, 4, 16))):
        if not body:
            return rng.choice(BYTES)
        # headers decide most, so half of the mutations fall into the first bytes
        at = rng.randrange(min(len(body), 128)) if rng.random() < 0.5 else rng.randrange(len(body))
        kind = rng.randrange(8)
        if kind == 0:
            body[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            body[at] = rng.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            del body[at : at + rng.choice((1, 4, 64, 1024))]
        elif kind == 3:
            body[at:at] = body[at : at + rng.choice((1, 4, 64))]
        elif kind == 4:
            body[at:at] = rng.choice(BYTES)
        elif kind == 5:
            number = rng.choice(NUMBERS) % 2**32
            body[at : at + 4] = struct.pack(rng.choice(("<I", ">I")), number)
        elif kind == 6:
            del body[rng.randrange(len(body)) :]
        else:
            body += rng.randbytes(rng.choice((1, 16, 512)))
    return bytes(body)


def png(rng: Random, data: bytes) -> bytes:
    """A mutated PNG whose chunks have right lengths and checksums, so that decoders read on."""
    chunks = list(png_chunks(data))
    if not chunks:
        return raw(rng, data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        i = rng.randrange(len(chunks))
        name, body = chunks[i]
        kind = rng.randrange(6)
        if kind == 0 and name == b"IHDR":
            chunks[i] = (name, _header(rng, body))
        elif kind == 1:
            chunks.insert(
                i,
                (
                    rng.choice((b"tRNS", b"PLTE", b"gAMA", b"eXIf", b"acTL", b"iCCP", b"tEXt")),
                    rng.randbytes(12),
                ),
            )
        elif kind == 2:
            bomb = b"note\0\0" + zlib.compress(b"\0" * rng.choice((1 << 10, 1 << 22)))
            chunks.insert(1, (rng.choice((b"zTXt", b"iTXt", b"iCCP")), bomb))
        elif kind == 3 and len(chunks) > 2:
            chunks.pop(i)
        elif kind == 4:
            chunks.insert(i, chunks[i])
        else:
            chunks[i] = (name, raw(rng, body, 1) if body else body)
    return data[:8] + b"".join(_chunk(name, body) for name, body in chunks)


def png_chunks(data: bytes):
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _header(rng: Random, body: bytes) -> bytes:
    fields = list(struct.unpack(">IIBBBBB", body))
    index = rng.randrange(len(fields))
    sizes = (0, 1, 3, 65_535, 100_000, 2**31 - 1)
    fields[index] = rng.choice(sizes) if index < 2 else rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return struct.pack(">IIBBBBB", *fields)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def encoded(rng: Random, text: str) -> bytes:
    """Text in some encoding, now and then a wrong one."""
    name = rng.choice(
        ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32")
    )
    return (
        text.encode(name, errors=rng.choice(("ignore", "replace")))
        if name != "utf-8"
        else text.encode("utf-8", errors="surrogatepass")
    )
