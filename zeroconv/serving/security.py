"""Who may call the server: Host against DNS rebinding, Origin against other sites' pages, a token
where other machines reach it. An ASGI middleware before everything else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from zeroconv.serving.body import BodyLimits, Refused, read_body, replay
from zeroconv.serving.errors import answer
from zeroconv.serving.settings import ServerSettings, is_loopback

COOKIE = "zeroconv"
READING = ("GET", "HEAD", "OPTIONS")
# what a browser needs before it can ask for the token
OPEN = ("/", "/favicon.ico", "/api/v1/login", "/api/v1/info")
OPEN_FOLDER = "/static/"
OPEN_BODY = 10_000  # bytes
WRONG_TOKEN_SECONDS = 0.5
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
}


class Security:
    """Refuses what may not come in, reads bodies within bounds, and adds headers to answers."""

    def __init__(self, app: Any, settings: ServerSettings) -> None:
        self.app, self.settings = app, settings
        self.bodies = BodyLimits(settings.limits)
        names = {"localhost", *(name.lower() for name in settings.hosts)}
        if not settings.loopback:
            names |= {settings.host.lower(), socket.gethostname().lower()}
        self.names = names

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
            # whoever has no token yet sends nothing but the token
            most = OPEN_BODY if _is_open(scope) else self.settings.limits.body
            body = await read_body(headers, receive, self.bodies, most)
        except Refused as refused:
            if refused.status == 401 and _credentials(headers):
                await asyncio.sleep(WRONG_TOKEN_SECONDS)  # against guessing
            response = answer(refused.status, refused.sentence)
            if refused.status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="zeroconv"'
            if refused.closes:
                response.headers["Connection"] = "close"
            await response(scope, receive, with_headers)
            return
        try:
            await self.app(scope, replay(body, receive), with_headers)
        finally:
            self.bodies.give_back(len(body))

    def _check(self, scope: Any, headers: Headers) -> None:
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._knows(host):
            raise Refused(
                403, "This server is not called by that Host; use its address, or start it with "
                "--allow-host NAME.",
            )  # fmt: skip
        self._check_site(scope, headers, host)
        token = self.settings.token
        if token is not None and not _is_open(scope) and not knows_token(headers, token):
            raise Refused(401, "A token is needed: send Authorization: Bearer TOKEN.")

    def _knows(self, host: str) -> bool:
        """An address cannot be another site's name; a name must be one of ours."""
        name = _name_of(host)
        if name is None:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not self.settings.loopback or is_loopback(name)

    def _check_site(self, scope: Any, headers: Headers, host: str) -> None:
        """Only pages of this server may call it; programs send no Origin."""
        for origin in headers.getlist("origin"):
            if _origin_host(origin) != host.lower():
                raise Refused(403, "Pages of other sites may not call this server (Origin).")
        opened = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not opened:
            raise Refused(403, "Pages of other sites may not call this server (Sec-Fetch-Site).")


def _name_of(host: str) -> str | None:
    """The name or address of a Host header, without the port; None for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for what is no number
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in host or parts.hostname is None:
        return None
    return parts.hostname.lower().rstrip(".")


def _origin_host(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _is_open(scope: Any) -> bool:
    path = scope["path"]
    return path in OPEN or (path.startswith(OPEN_FOLDER) and scope["method"] in READING)


def knows_token(headers: Mapping[str, str], token: str) -> bool:
    """Whether a request brings the token: Bearer, the password of Basic, or the cookie."""
    return any(same(given, wanted) for given, wanted in _given(headers, token))


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8"))


def cookie_value(token: str) -> str:
    """What the cookie holds in place of the token."""
    return hmac.new(token.encode(), b"zeroconv studio", hashlib.sha256).hexdigest()


def _given(headers: Mapping[str, str], token: str) -> list[tuple[str, str]]:
    given = []
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        given.append((value.strip(), token))
    elif scheme.lower() == "basic":
        given.append((_password(value), token))
    if (cookie := _cookie(headers)) is not None:
        given.append((cookie, cookie_value(token)))
    return given


def _credentials(headers: Mapping[str, str]) -> bool:
    return "authorization" in headers or _cookie(headers) is not None


def _password(value: str) -> str:
    try:
        return base64.b64decode(value.strip()).decode("utf-8", "replace").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _cookie(headers: Mapping[str, str]) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value
