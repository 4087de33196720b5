"""`/sdapi/v1/txt2img` and `img2img`, and what is asked while they run: progress, interrupt, skip.

A request is answered when its pictures are done, as A1111's clients expect.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from zeroconv.pictures.carried import carried
from zeroconv.serving.a1111.answers import info_of, parameters_of, stamp
from zeroconv.serving.a1111.hints import of_network, unit_with_hint
from zeroconv.serving.a1111.mapping import SEEDS, Wanted, read_img2img, read_txt2img
from zeroconv.serving.a1111.routing import (
    Answer,
    Route,
    drawn_beside,
    in_few_threads,
    refused,
    studio_of,
    with_notes,
)
from zeroconv.serving.a1111.schemas import Generating, Img2Img, Txt2Img
from zeroconv.serving.a1111.state import State, state_of
from zeroconv.serving.a1111.units import decoder
from zeroconv.serving.generation import Unit
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.pixels import png_base64

router = APIRouter(route_class=Route, include_in_schema=False)
T = TypeVar("T")


@router.post("/sdapi/v1/txt2img")
async def txt2img(body: Txt2Img, request: Request) -> Answer:
    return await _made(request, body, read_txt2img)


@router.post("/sdapi/v1/img2img")
async def img2img(body: Img2Img, request: Request) -> Answer:
    if not body.init_images:
        return refused(404, "Init image not found")
    return await _made(request, body, read_img2img)


async def _made(request: Request, body: Any, read: Callable[..., Wanted]) -> Answer:
    with studio_of(request).room.request():
        return await _counted(request, body, read)


async def _counted(request: Request, body: Any, read: Callable[..., Wanted]) -> Answer:
    state, notes = state_of(request), list[str]()
    decode = decoder(state.studio.settings.limits.pixels)
    chance = secrets.randbelow(SEEDS)
    wanted = await _noting(request, notes, lambda: read(body, state.known(), decode, chance))
    settings = state.studio.settings
    wanted.request.check(  # before hints are drawn at its size
        state.studio.catalogue, settings.limits, settings.fast, settings.engine
    )
    wanted.request.controls = await _controls(request, state, wanted, notes)
    kept = wanted.request.keep = body.save_images
    job = Job("generate", wanted.request, wanted.request.settings(), kept=kept)
    state.studio.jobs.submit(job)
    state.jobs[job.id] = job
    state.interrupted = state.skipped = False
    units = wanted.request.controls  # of the job they are dropped when it ends
    try:
        # pictures that are kept are made also for a client that is gone
        await state.studio.wait(job, _stays if kept else request.is_disconnected)
    finally:
        state.jobs.pop(job.id, None)
    if job.state not in ("done", "cancelled"):
        if not kept:
            _forget(state, job)
        status = 500 if (job.error or "").startswith("Internal error") else 422
        return refused(status, job.error or "The server was stopped.")
    if not body.override_settings_restore_afterwards:
        state.set(body.override_settings)
    return await run_in_threadpool(_answer, state, body, wanted, units, job, notes)


async def _noting(request: Request, notes: list[str], work: Callable[[], T]) -> T:
    """In another thread; what it warns of is added to the notes."""
    return await in_few_threads(request, with_notes(work, notes))


async def _controls(request: Request, state: State, wanted: Wanted, notes: list[str]) -> list[Unit]:
    """The units as controls with finished hints. What a network reads, the worker reads."""
    controls = []
    most = state.studio.settings.limits.pixels
    known = state.known()
    default = known.bases[wanted.request.base or state.studio.catalogue.default]
    for asked in wanted.units:
        facts = state.studio.catalogue.control(asked.control).facts

        def work(asked: Any = asked, facts: Any = facts) -> Unit:
            return unit_with_hint(asked, wanted, facts, default, most)

        if of_network(asked.module):
            gone = request.is_disconnected
            control, more = await state.studio.call(work, gone, theirs=state.jobs)
            notes += [note for note in more if note not in notes]
            controls.append(control)
        else:
            drawing = with_notes(work, notes)
            controls.append(await drawn_beside(request, state.jobs, drawing))
    return controls


async def _stays() -> bool:
    return False


def _answer(
    state: State, body: Generating, wanted: Wanted, units: list[Unit], job: Job, notes: list[str]
) -> Answer:
    """Pictures, then the hints of the units."""
    history = state.studio.history
    files = [history.path(result["id"], ".png").read_bytes() for result in job.results]
    texts = [carried(file).get("parameters", "") for file in files]
    if not body.save_images:
        _forget(state, job)
    cancelled = job.state == "cancelled"
    pictures = [base64.b64encode(file).decode("ascii") for file in files]
    for asked, unit in zip(wanted.units, units, strict=True):
        if asked.shown and unit.hint is not None:
            pictures.append(png_base64(unit.hint))
    said = [*notes, *(note for note in job.notes if note not in notes)]
    parameters = parameters_of(body)
    if isinstance(body, Img2Img) and body.include_init_images:
        parameters["init_images"] = body.init_images
    return Answer(
        {
            "images": pictures if body.send_images else [],
            "parameters": parameters,
            "info": info_of(body, wanted, texts, job.created, said, cancelled),
        }
    )


def _forget(state: State, job: Job) -> None:
    """Take a job's pictures out of the history."""
    for result in job.results:
        state.studio.history.delete(result["id"])
    job.results = []


# ---------------------------------------------------------------- while they run


@router.get("/sdapi/v1/progress")
async def progress(request: Request, skip_current_image: bool = False) -> Answer:
    """Of the job that is computed now, these clients' first."""
    state = state_of(request)
    running = [job for job in state.studio.jobs.running() if job.kind == "generate"]
    running.sort(key=lambda job: job.id not in state.jobs)
    job = running[0] if running else None
    theirs = [one for one in state.jobs.values() if one.kind == "generate"]
    waiting = [one for one in theirs if one.state == "queued"]
    picture = None
    draw = None if job is None or skip_current_image else job.draw_preview
    if draw is not None:
        drawn = await in_few_threads(request, draw)
        picture = base64.b64encode(drawn).decode("ascii")
    return Answer(
        {
            "progress": 0.0 if job is None else job.progress,
            "eta_relative": (0.0 if job is None else job.eta() or 0.0),
            "state": {
                "skipped": state.skipped,
                "interrupted": state.interrupted,
                "stopping_generation": job is not None and job.cancelling,
                "job": "" if job is None else job.id,
                "job_count": len(running) + len(waiting),
                "job_timestamp": stamp(0 if job is None else job.created),
                "job_no": 0,
                "sampling_step": 0 if job is None else job.step,
                "sampling_steps": 0 if job is None else job.steps,
            },
            "current_image": picture,
            "textinfo": None,
        }
    )


@router.post("/sdapi/v1/interrupt")
async def interrupt(request: Request) -> Answer:
    """Stop what these clients have running; their requests are answered with what is done."""
    state = state_of(request)
    state.interrupted = _stop(state)
    return Answer({})


@router.post("/sdapi/v1/skip")
async def skip(request: Request) -> Answer:
    """The same as interrupt: all pictures of a request are one job."""
    state = state_of(request)
    state.skipped = _stop(state)
    return Answer({})


def _stop(state: State) -> bool:
    running = [job for job in state.jobs.values() if job.state == "running"]
    for job in running:
        state.studio.jobs.cancel(job)
    return bool(running)
