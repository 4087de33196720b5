"""Bodies of requests: JSON alone, bounded in bytes, all together too, and in time."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from starlette.datastructures import Headers

from zeroconv import inputs
from zeroconv.serving.settings import Limits

MOST_VALUES = 200_000  # in a body; each takes a hundred times its bytes as an object of Python
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # half of a surrogate pair, or of two halves the first


class Refused(Exception):
    """A request that goes no further. closes: whether its connection is of no use any more."""

    def __init__(self, status: int, sentence: str, closes: bool = False) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.closes = status, sentence, closes


class BodyLimits:
    """The bounds, and how many bytes of bodies are held now."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    def take(self, count: int) -> None:
        if self.held + count > self.limits.bodies:
            raise Refused(429, "The server holds too many requests now; try again.", closes=True)
        self.held += count

    def give_back(self, count: int) -> None:
        self.held -= count


def check_head(headers: Headers, most: int) -> bool:
    """Whether a body will come, of `most` bytes. Raises Refused for one that would not be read."""
    length, chunked = headers.get("content-length"), "transfer-encoding" in headers
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise Refused(400, "Content-Length is no number.", closes=True)
    comes = chunked or (length is not None and int(length[:20]) > 0)
    if not comes:
        return False
    if length is not None and int(length[:20]) > most:
        raise _too_large(most)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "Bodies are JSON here; send Content-Type: application/json.", True)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "Bodies are not compressed here; send them plain.", True)
    return True


async def read_body(headers: Headers, receive: Any, bodies: BodyLimits, most: int) -> bytes:
    """The whole body, of `most` bytes; what it takes of the bounds is to be given back. Raises
    Refused.
    """
    limits = bodies.limits
    if not check_head(headers, most):
        return b""
    loop = asyncio.get_running_loop()
    began, parts, size = loop.time(), [], 0
    try:
        while True:
            left = began + limits.body_seconds + size / limits.body_rate - loop.time()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.01))
            except TimeoutError:
                raise Refused(408, "The body came too slowly.", closes=True) from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "The body was cut short.", closes=True)
            part = message.get("body", b"")
            bodies.take(len(part))
            size += len(part)
            parts.append(part)
            if size > most:
                raise _too_large(most)
            if not message.get("more_body"):
                return b"".join(parts)
    except BaseException:
        bodies.give_back(size)
        raise


def _too_large(most: int) -> Refused:
    shown = f"{most / 2**20:.3g} MiB" if most >= 2**20 else f"{most:,} bytes"
    return Refused(413, f"The body is too large; {shown} are read at most.", closes=True)


def parse_body(content: bytes) -> Any:
    """The value of a body. Raises ValueError for what is no JSON, has NaN, a name twice, deep
    nesting, half of a surrogate pair, or so many values that they would fill the memory.
    """
    # before anything is made of it; base64 has none of these signs
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    value = inputs.parse_json(content, unique=True)
    if _HALF.search(content):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text in it holds half of a surrogate pair") from None
    return value


def replay(body: bytes, receive: Any) -> Any:
    """A `receive` that brings the body, and then what the connection brings."""
    sent = False

    async def again() -> Any:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
