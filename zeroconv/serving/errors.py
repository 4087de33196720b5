"""Errors as clients read them: `{"error": "one sentence"}`, and never a traceback."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from zeroconv.errors import UserError
from zeroconv.files import is_disk_full
from zeroconv.serving.body import parse_body

log = logging.getLogger("zeroconv.serving")
LONGEST = 1000  # characters of a sentence
TITLES = {404: "There is nothing at this address.", 405: "This address knows no such method."}


class ApiError(Exception):
    """An answer with another status than 200: a sentence for the client."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def answer(status: int, sentence: object) -> JSONResponse:
    """`{"error": sentence}`, printable and of bounded length."""
    return JSONResponse({"error": one_sentence(sentence)}, status)


def one_sentence(message: object) -> str:
    """A message without line breaks, control characters and lone surrogates."""
    words = " ".join(str(message).split())
    if len(words) > LONGEST:
        words = f"{words[: LONGEST // 2]} … {words[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def logged(error: BaseException, where: str) -> str:
    """Write the traceback to the log; returns what the client is told instead."""
    number = secrets.token_hex(4)
    log.error("internal error %s in %s", number, where, exc_info=error)
    return f"Internal error, id {number}: the server's log says more."


def sentence_of(error: BaseException, where: str) -> str:
    """What a client is told of an error: a user's mistake as it is, anything else by its id."""
    if isinstance(error, UserError):
        return one_sentence(error)
    if is_out_of_memory(error):
        return "There is not enough memory for this; ask for less at once."
    if is_full(error):
        return "The disk of the server's data folder is full; make room."
    return logged(error, where)


def is_full(error: BaseException) -> bool:
    """Whether the disk is full, as Python or SQLite says it."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return is_disk_full(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Of Python, of torch on a card, and of torch on a processor, which has no class for it."""
    name = type(error).__name__
    return (
        isinstance(error, MemoryError)
        or name == "OutOfMemoryError"
        or (name == "RuntimeError" and "DefaultCPUAllocator" in str(error))
    )


class JsonRoute(APIRoute):
    """A route whose body is read by our strict parser, see `parse_body`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


class StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return parse_body(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"The body is no JSON: {error}.") from error


def install(app: FastAPI) -> None:
    """Give the application these answers."""

    @app.exception_handler(UserError)
    async def mistake(request: Request, error: UserError) -> Response:
        return answer(422, error)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return answer(error.status, error.sentence)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(422, _first(error.errors()))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        response = answer(error.status_code, TITLES.get(error.status_code, error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        if is_out_of_memory(error) or is_full(error):
            return answer(503, sentence_of(error, ""))
        return answer(500, logged(error, f"{request.method} {request.url.path}"))


def _first(errors: Any) -> str:
    """A sentence on the first of pydantic's errors."""
    first = errors[0] if errors else {}
    parts = [str(part)[:40] for part in first.get("loc", ())]
    where = ".".join(parts[1:]) or "the body"
    if first.get("type") == "extra_forbidden":
        return f"There is no field {where}; look at /api/v1/openapi.json."
    more = f" ({len(errors)} fields are wrong)" if len(errors) > 1 else ""
    return f"{where}: {first.get('msg', 'it is wrong')}{more}."
