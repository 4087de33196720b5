"""Web servers, as fsspec speaks to them, with bounds: on each answer, its time, and where it may
lead.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

SECONDS = 30.0  # an answer may take, and a copy without a byte
MOST_ANSWER = 64 << 20  # bytes: a page of links, or a part of a file; a copy has a bound of its own
_LINK = re.compile(r"""href\s{0,9}=\s{0,9}["']?([^"'\s<>]{1,4096})""", re.IGNORECASE)


class TooMuch(ValueError):
    """A server sends more than it may."""


class Refused(ValueError):
    """A server sends what was not asked for."""


class Answer(aiohttp.ClientResponse):
    """A response of which no more than `MOST_ANSWER` is taken into memory."""

    async def read(self) -> bytes:
        content = bytearray()

        async for chunk in self.content.iter_any():
            content += chunk

            if len(content) > MOST_ANSWER:
                self.close()
                raise TooMuch(f"its answer has more than {MOST_ANSWER:,} bytes")
        return bytes(content)

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        return (await self.read()).decode(encoding or "utf-8", errors)


class Web(HTTPFileSystem):
    """fsspec's, with a session of ours. It reads the links of a page in one pass: the patterns of
    fsspec take a time that grows with the square of the page's length.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "get_client": _session})

    async def _ls_real(self, url: str, detail: bool = True, **_: Any) -> list[Any]:
        session = await self.set_session()

        async with session.get(self.encode_url(url)) as answer:
            self._raise_not_found_for_status(answer, url)
            page = await answer.text(errors="replace")

        folder = f"{url.rstrip('/')}/"
        links = {urljoin(folder, link) for link in _LINK.findall(page)}
        # a page may link to anything; what lies in its folder counts
        inside = sorted(link for link in links if link.startswith(folder) and link != folder)

        if not detail:
            return inside
        return [
            {"name": u, "size": None, "type": "directory" if u.endswith("/") else "file"}
            for u in inside
        ]


async def _session(loop: Any = None, **options: Any) -> aiohttp.ClientSession:
    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(_stays_encrypted)
    watch.on_request_end.append(_is_plain)
    return aiohttp.ClientSession(
        loop=loop,
        timeout=aiohttp.ClientTimeout(total=SECONDS, sock_connect=SECONDS, sock_read=SECONDS),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        response_class=Answer,
        trace_configs=[watch],
        cookie_jar=aiohttp.DummyCookieJar(),
        **options,
    )


async def _stays_encrypted(_: Any, __: Any, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    """aiohttp itself follows ten redirects at most, to http and https alone."""
    to = urljoin(str(redirect.url), redirect.response.headers.get("Location", ""))

    if redirect.url.scheme == "https" and not to.startswith("https:"):
        raise Refused("it leads from https to an address that is not encrypted")


async def _is_plain(_: Any, __: Any, trace: aiohttp.TraceRequestEndParams) -> None:
    """What is compressed on its way has no length that can be checked, and a few bytes may become
    any number.
    """
    encoding = trace.response.headers.get("Content-Encoding", "identity").strip().lower()

    if encoding not in ("", "identity"):
        raise Refused(f"it sends its files compressed ({encoding[:20]!r}), though asked not to")
