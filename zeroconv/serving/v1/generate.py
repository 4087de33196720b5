"""POST /generate."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from zeroconv.serving.errors import JsonRoute
from zeroconv.serving.notes import noted
from zeroconv.serving.studio import Studio
from zeroconv.serving.v1.answers import ERRORS, job_json
from zeroconv.serving.v1.schemas import GenerateBody
from zeroconv.serving.v1.translating import generation_of

router = APIRouter(route_class=JsonRoute, tags=["generate"], responses=ERRORS)


@router.post("/generate", status_code=202)
def generate(body: GenerateBody, request: Request) -> dict[str, Any]:
    """Queue pictures; the answer is their job."""
    studio: Studio = request.app.state.studio
    with studio.room.request() as holding:
        with noted() as notes:
            asked = generation_of(body, studio.settings.limits)
        return job_json(studio, studio.submit(asked, notes, holding))
