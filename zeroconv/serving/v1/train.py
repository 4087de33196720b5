"""Training: the form's schema, memory beforehand, runs and their curves; uploaded data sets."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from zeroconv.serving.errors import ApiError, JsonRoute
from zeroconv.serving.notes import noted
from zeroconv.serving.pixels import read_rgb
from zeroconv.serving.studio import Studio
from zeroconv.serving.training.planning import plan
from zeroconv.serving.training.recipes import read_recipe_file, recipe_file, recipe_of, write_recipe
from zeroconv.serving.training.removing import bytes_below, cache_folder, run_bytes, uploaded_sets
from zeroconv.serving.training.runs import describe_run, names_of_runs, sample_file
from zeroconv.serving.training.uploads import keep_set
from zeroconv.serving.v1.answers import ERRORS, PNG, job_json
from zeroconv.serving.v1.train_schemas import DatasetBody, ResumeBody, TrainBody

router = APIRouter(route_class=JsonRoute, tags=["train"], responses=ERRORS)


def _studio(request: Request) -> Studio:
    """Raises ApiError where the server does not train."""
    studio: Studio = request.app.state.studio
    if not studio.settings.allow_training:
        raise ApiError(403, "This server was started without training.")
    return studio


@router.get("/train/schema")
def schema(request: Request) -> dict[str, Any]:
    """`schema`: JSON schema of the body of /train; data and conditions to choose from."""
    from zeroconv.conditions import CONDITIONS

    studio = _studio(request)
    return {
        "schema": TrainBody.model_json_schema(),
        "data": list(studio.catalogue.datasets),
        "bases": list(studio.catalogue.bases),
        "conditions": list(CONDITIONS),
    }


@router.post("/train/plan")
async def reckon(body: TrainBody, request: Request) -> dict[str, Any]:
    """The memory that it takes, in MiB, and notes; nothing is started."""
    studio = _studio(request)
    _, recipe, notes = recipe_of(body.model_dump(), studio.settings, studio.catalogue)
    reckoned = partial(plan, recipe)
    answer, more = await studio.call(reckoned, request.is_disconnected, "plan")
    return {**answer, "notes": [*notes, *answer["notes"], *more]}


@router.post("/train", status_code=202)
def train(body: TrainBody, request: Request) -> dict[str, Any]:
    """Start a run, behind those that wait. Its job's result names the run."""
    studio = _studio(request)
    name, recipe, notes = recipe_of(body.model_dump(), studio.settings, studio.catalogue)
    job = studio.trainings.begin(name, recipe, body.model_dump(mode="json"), notes)
    return job_json(studio, job)


@router.get("/train/runs")
def runs(request: Request) -> dict[str, Any]:
    """The newest first, without their curves; and the bytes of what they computed beforehand."""
    studio = _studio(request)
    left_out = ("loss", "hint_gain", "recipe")
    listed = [_run(studio, name) for name in names_of_runs(studio.settings)]
    shown = [{k: v for k, v in run.items() if k not in left_out} for run in listed]
    return {"runs": shown, "cache_bytes": bytes_below(cache_folder(studio.settings))}


@router.get("/train/runs/{name}")
def run(name: str, request: Request) -> dict[str, Any]:
    return _run(_studio(request), name)


def _run(studio: Studio, name: str) -> dict[str, Any]:
    described = describe_run(studio.settings, name)
    control = studio.run_control(name)
    described |= {"job": None, "control": None if control is None else control.name}
    described["bytes"] = run_bytes(studio.settings, name)
    if (job := studio.trainings.job_of(name)) is not None:
        described |= {"state": job.state, "job": job.id, "time_left_s": job.eta()}
    return described


@router.delete("/train/runs/{name}")
def remove(name: str, request: Request) -> dict[str, Any]:
    """Remove a run with its checkpoints, samples and control; 409 while it is at work."""
    return {"removed": name, "bytes": _studio(request).remove_run(name)}


@router.delete("/train/cache")
def clear(request: Request) -> dict[str, Any]:
    """Remove hints, latents and text states that were computed beforehand; a training that needs
    them computes them again. 409 while one is at work.
    """
    return {"bytes": _studio(request).trainings.remove_cache()}


@router.post("/train/runs/{name}/stop")
def stop(name: str, request: Request) -> dict[str, Any]:
    """Save and stop it; /resume goes on."""
    studio = _studio(request)
    read_recipe_file(recipe_file(studio.settings, name))
    job = studio.trainings.job_of(name)
    if job is None:
        raise ApiError(409, f"The run {name} is not at work.")
    studio.jobs.cancel(job)
    return job_json(studio, job)


@router.post("/train/runs/{name}/resume", status_code=202)
def resume(name: str, request: Request, body: ResumeBody | None = None) -> dict[str, Any]:
    """Go on where it was stopped, or longer."""
    studio = _studio(request)
    path = recipe_file(studio.settings, name)
    recipe = read_recipe_file(path)
    if studio.trainings.job_of(name) is not None:
        raise ApiError(409, f"The run {name} is at work already.")
    if body is not None and body.steps is not None:
        most = studio.settings.limits.train_steps
        if body.steps > most:
            raise ApiError(422, f"steps is above {most}, this server's most.")
        training = recipe.training.model_copy(update={"steps": body.steps})
        recipe = recipe.model_copy(update={"training": training})
        write_recipe(path, recipe)
    job = studio.trainings.submit(name, {"name": name, "resume": True})
    return job_json(studio, job)


@router.get("/train/runs/{name}/samples/{file}", response_class=FileResponse, responses=PNG)
def sample(name: str, file: str, request: Request) -> FileResponse:
    """A sheet: hint, target, made with the caption, made without a prompt."""
    path = sample_file(_studio(request).settings, name, file)
    return FileResponse(path, media_type="image/png")


@router.get("/datasets")
def uploaded(request: Request) -> dict[str, Any]:
    """The uploaded data sets, each with its pictures and bytes."""
    return {"datasets": uploaded_sets(_studio(request).settings)}


@router.delete("/datasets/{id}")
def remove_uploaded(id: str, request: Request) -> dict[str, Any]:
    """Remove an uploaded data set; 409 while a training or a measurement is at work."""
    return {"removed": id, "bytes": _studio(request).remove_set(id)}


@router.post("/datasets", status_code=201)
def upload(body: DatasetBody, request: Request) -> dict[str, Any]:
    """Keep pictures with captions; `id` names the set in /train and /evaluate."""
    studio = _studio(request)
    limits = studio.settings.limits
    if len(body.items) > limits.uploaded:
        raise ApiError(422, f"items has {len(body.items)} pictures; send {limits.uploaded}.")
    items = (  # decoded one by one: together they may be larger than the memory
        (read_rgb(item.picture, f"items.{i}.picture", limits.pixels), item.caption)
        for i, item in enumerate(body.items)
    )
    with noted() as notes:
        id, folder = keep_set(studio.settings, body.name, items)
    studio.catalogue.add_dataset(id, folder)
    return {"id": id, "pictures": len(body.items), "notes": notes}
