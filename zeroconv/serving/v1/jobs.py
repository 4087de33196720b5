"""GET /jobs, and their events as a stream (server-sent events)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from zeroconv.serving.errors import ApiError, JsonRoute
from zeroconv.serving.jobs.job import OPEN, Job
from zeroconv.serving.studio import Studio
from zeroconv.serving.v1.answers import ERRORS, job_json

router = APIRouter(route_class=JsonRoute, tags=["jobs"], responses=ERRORS)
PING_SECONDS = 15.0
STREAM = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    **ERRORS,
}


@router.get("/jobs")
def jobs(request: Request) -> dict[str, Any]:
    """Jobs of this run of the server, the newest first, and lost ones of earlier runs."""
    studio: Studio = request.app.state.studio
    listed = [job_json(studio, job) for job in studio.jobs.listed()]
    known = {job["id"] for job in listed}
    older = studio.history.jobs(studio.settings.limits.kept)
    return {"jobs": listed + [job for job in older if job["id"] not in known]}


@router.get("/jobs/{id}")
def job(id: str, request: Request) -> dict[str, Any]:
    studio: Studio = request.app.state.studio
    try:
        return job_json(studio, studio.jobs.get(id))
    except ApiError:
        older = studio.history.job(id)
        if older is None:
            raise
        return {**older, "position": None}


@router.delete("/jobs/{id}")
def cancel(id: str, request: Request) -> dict[str, Any]:
    """Cancel it. One that is running ends at its next step; finished pictures stay."""
    studio: Studio = request.app.state.studio
    one = studio.jobs.get(id)
    studio.jobs.cancel(one)
    return job_json(studio, one)


@router.get(
    "/jobs/{id}/preview.jpg",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **ERRORS},
)
def preview(id: str, request: Request) -> Response:
    """The newest picture of what is being sampled."""
    studio: Studio = request.app.state.studio
    one = studio.jobs.get(id)
    draw = one.draw_preview
    if draw is None:
        raise ApiError(404, "This job has no preview.")
    return Response(draw(), media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@router.get("/jobs/{id}/events", response_class=StreamingResponse, responses=STREAM)
async def job_events(id: str, request: Request) -> StreamingResponse:
    """event: progress, preview, done, failed, cancelled; data: the job. Ends with the job."""
    studio: Studio = request.app.state.studio
    return _stream(studio, studio.jobs.get(id))


@router.get("/events", response_class=StreamingResponse, responses=STREAM)
async def events(request: Request) -> StreamingResponse:
    """The same of all jobs, without an end."""
    studio: Studio = request.app.state.studio
    return _stream(studio, None)


def _stream(studio: Studio, only: Job | None) -> StreamingResponse:
    """Raises ApiError 429 where too many listen: each holds a connection."""
    most = studio.settings.limits.streams
    if len(studio.jobs.listeners) >= most:
        raise ApiError(429, f"{most} clients listen to events already; ask for the job's state.")
    lines = _events(studio, only)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def _events(studio: Studio, only: Job | None) -> AsyncIterator[str]:
    previews: dict[str, int] = {}
    with studio.jobs.listeners.listening() as listener:
        yield ": open\n\n"  # so that a client knows it listens before anything happens
        changed = [only.id] if only is not None else []
        while not studio.stopping:
            for id in changed:
                one = _listened(studio, id, only)
                if one is None:
                    continue
                state = job_json(studio, one)
                yield _event(state, previews)
                # of what was sent: the job may have ended since
                if only is not None and state["state"] not in OPEN:
                    return
            changed = await listener.changed(PING_SECONDS)
            if not changed:
                yield ": ping\n\n"
            await asyncio.sleep(0)


def _listened(studio: Studio, id: str, only: Job | None) -> Job | None:
    """The job that changed, if it is one that the client listens to."""
    if only is not None:
        return only if id == only.id else None
    try:
        one = studio.jobs.get(id)
    except ApiError:  # ended, and dropped since
        return None
    return one if one.kept or one.waited else None


def _event(job: dict[str, Any], previews: dict[str, int]) -> str:
    """A state that ends it, else "preview" where there is a new one, else "progress"."""
    is_open = job["state"] in OPEN
    name = "progress" if is_open else job["state"]
    if is_open and job["preview"] > previews.get(job["id"], 0):
        name, previews[job["id"]] = "preview", job["preview"]
    if not is_open:
        previews.pop(job["id"], None)
    return f"event: {name}\ndata: {json.dumps(job)}\n\n"
