"""POST /evaluate, and the pictures of its reports."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from zeroconv.serving.errors import ApiError, JsonRoute
from zeroconv.serving.evaluating import Evaluation, measured_control, measured_file
from zeroconv.serving.generation import fast_words
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.studio import Studio
from zeroconv.serving.v1.answers import ERRORS, PNG, job_json
from zeroconv.serving.v1.train_schemas import EvaluateBody

router = APIRouter(route_class=JsonRoute, tags=["evaluate"], responses=ERRORS)


@router.post("/evaluate", status_code=202)
def evaluate(body: EvaluateBody, request: Request) -> dict[str, Any]:
    """Queue a measurement. The job's result: `table`, a row a metric with floor, control and
    ceiling, each {mean, low, high}; `pictures`, the best, median and worst.
    """
    studio: Studio = request.app.state.studio
    names, limits = studio.catalogue, studio.settings.limits
    for name, value, most in (
        ("count", body.count, limits.evaluated),
        ("steps", body.steps, limits.steps),
    ):
        if value > most:
            raise ApiError(422, f"{name} is {value}; this server allows {most} at most.")
    asked = Evaluation(
        control=measured_control(names, body.control, body.condition),
        base=names.base(body.base).name,
        data=names.dataset(body.data).facts["measure"],
        count=body.count,
        steps=body.steps,
        prompts=body.prompts,
        seed=body.seed,
        fast=fast_words(body.fast or studio.settings.fast),
        engine=studio.settings.engine,
    )
    job = studio.jobs.submit(Job("evaluate", asked, body.model_dump(mode="json")))
    return job_json(studio, job)


@router.get("/measured/{file}", response_class=FileResponse, responses=PNG)
def picture(file: str, request: Request) -> FileResponse:
    studio: Studio = request.app.state.studio
    return FileResponse(measured_file(studio.settings, file), media_type="image/png")
