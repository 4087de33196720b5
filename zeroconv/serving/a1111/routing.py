"""A1111's answers: its shape of errors, `{"detail": …}`, and JSON that any client can read."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from zeroconv.errors import UserError
from zeroconv.serving.errors import ApiError, JsonRoute, one_sentence
from zeroconv.serving.jobs.job import Cancelled, Job
from zeroconv.serving.notes import noted
from zeroconv.serving.studio import LOOK_SECONDS, Studio
from zeroconv.stopping import stoppable

T = TypeVar("T")
THREADS = 2


class Answer(JSONResponse):
    """Plain ASCII, so that lone surrogates of a request do no harm."""

    def render(self, content: Any) -> bytes:
        return json.dumps(finite(content), allow_nan=False).encode("ascii")


def finite(value: Any) -> Any:
    """Numbers that JSON has none for become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


class Route(JsonRoute):
    """A route whose errors have A1111's shape."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                return Answer({"detail": list(map(_shown, error.errors()[:20]))}, 422)
            except HTTPException as error:
                return refused(error.status_code, error.detail)
            except ApiError as error:
                return refused(error.status, error.sentence)
            except UserError as error:
                return refused(422, error)

        return handle


def refused(status: int, sentence: object) -> Answer:
    return Answer({"detail": one_sentence(sentence)}, status)


def _shown(error: dict[str, Any]) -> dict[str, Any]:
    """One of pydantic's errors, without the value: that may be a picture."""
    where = [part if isinstance(part, int) else str(part)[:80] for part in error.get("loc", ())]
    return {"loc": where, "msg": str(error.get("msg", "")), "type": str(error.get("type", ""))}


async def in_few_threads(request: Request, work: Callable[[], T]) -> T:
    """Run what decodes and draws beside the event loop: a few at once, as each takes much memory.

    Raises what `work` raises.
    """
    state = request.app.state
    if not hasattr(state, "few"):
        state.few = CapacityLimiter(THREADS)
    return await to_thread.run_sync(work, limiter=state.few)


async def drawn_beside(request: Request, theirs: dict[str, Job], work: Callable[[], T]) -> T:
    """The same as a job that is listed while it is open, and cancelled when the client is gone.
    theirs: holds it meanwhile. Raises ApiError 409 where it was cancelled.
    """
    studio = studio_of(request)
    job = studio.jobs.add(Job("annotate", None, kept=False, waited=True))
    theirs[job.id] = job

    def run() -> T:
        studio.jobs.start(job)
        with stoppable(job.check):
            job.check()
            return work()

    task = asyncio.ensure_future(in_few_threads(request, run))
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                studio.jobs.cancel(job)
        return task.result()
    except Cancelled:
        raise ApiError(409, "It was cancelled.") from None
    finally:
        del theirs[job.id]
        studio.jobs.cancel(job)
        studio.jobs.end(job, "done" if task.done() and not _failed(task) else "cancelled")


def _failed(task: asyncio.Future[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def studio_of(request: Request) -> Studio:
    return request.app.state.studio


def with_notes(work: Callable[[], T], notes: list[str]) -> Callable[[], T]:
    """The same work, in whatever thread it runs; what it warns of is added to the notes."""

    def run() -> T:
        with noted() as sentences:
            try:
                return work()
            finally:
                notes.extend(sentence for sentence in sentences if sentence not in notes)

    return run
