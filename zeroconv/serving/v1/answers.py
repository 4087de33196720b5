"""What several routes answer with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from zeroconv.serving.jobs.job import Job
from zeroconv.serving.studio import Studio


class ErrorAnswer(BaseModel):
    error: str


_TEXTS = {
    400: "The body is no JSON.",
    401: "A token is needed.",
    403: "Another site's page, or an unknown Host.",
    404: "There is no such thing.",
    405: "Another method is needed.",
    408: "The body came too slowly.",
    409: "It is at work, or there already.",
    413: "The body is too large.",
    415: "The body is no JSON by its content type.",
    422: "A field is wrong.",
    429: "The queue is full.",
    503: "The server is busy.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text} for status, text in _TEXTS.items()
}
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}, **ERRORS}


def job_json(studio: Studio, job: Job) -> dict[str, Any]:
    """A job as clients see it, with how many wait before it."""
    return {**job.to_json(), "position": studio.jobs.position(job)}
