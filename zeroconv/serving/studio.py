"""What the routes share: settings, names, the queue, the worker and the history of one server."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any

from zeroconv.files import lock_folder
from zeroconv.serving.catalogue import Catalogue, Entry, list_models
from zeroconv.serving.errors import ApiError
from zeroconv.serving.evaluating import Evaluator
from zeroconv.serving.generation import Generation
from zeroconv.serving.holding import Holding, Room
from zeroconv.serving.jobs.history import History
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.keeping import Bounds
from zeroconv.serving.jobs.making import Maker
from zeroconv.serving.jobs.queue import Jobs
from zeroconv.serving.jobs.worker import Worker
from zeroconv.serving.models import Models
from zeroconv.serving.notes import noted
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.training.process import Trainings
from zeroconv.serving.training.recipes import runs_folder
from zeroconv.serving.training.removing import remove_set, sweep
from zeroconv.serving.training.runs import names_of_runs
from zeroconv.serving.training.uploads import uploads_folder

LOOK_SECONDS = 0.5  # between two looks whether a client is still there
_NONE = Entry("", "")
Gone = Callable[[], Awaitable[bool]]  # whether a client is gone, as Starlette's requests say it


class Studio:
    """Made before the server listens, so that mistakes in its settings stop it."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises UserError."""
        self.settings = settings
        check_device(settings)
        self.catalogue: Catalogue = list_models(settings)
        self.models = Models(settings, self.catalogue)
        if settings.files:
            self.models.base(self.catalogue.default)
        self._held = ExitStack()
        try:
            self._held.enter_context(lock_folder(settings.data, "serving"))
            limits = settings.limits
            self.history = History(settings.data, Bounds(limits.kept, limits.kept_days))
        except BaseException:
            self._held.close()
            raise
        self.lost = self.history.lost
        self.room = Room(limits.held)
        self.jobs = Jobs(limits.queue, limits.kept, self.history.record, limits.kept_days)
        maker = Maker(self.models, self.history, self.jobs)
        evaluator = Evaluator(settings, self.models, self.jobs)
        kinds: dict[str, Any] = {
            "generate": maker.make,
            "evaluate": evaluator.evaluate,
            "annotate": _call,
            "plan": _call,
        }
        self.trainings = Trainings(settings, self.jobs, self._trained)
        self._list_made()
        self.stopping = False
        self.worker = Worker(self.jobs, kinds, self._warm if settings.warm else None)

    def start(self) -> None:
        self.worker.start()
        self.trainings.start()

    def end_streams(self) -> None:
        """Let those who listen to jobs go."""
        self.stopping = True
        self.jobs.listeners.notify("")

    def stop(self) -> None:
        """Jobs that were not begun are lost, as their records say at the next start."""
        self.end_streams()
        self.jobs.close()
        self.trainings.close()
        self.worker.stop()
        self.history.close()
        self._held.close()

    def submit(self, request: Generation, notes: Sequence[str], holding: Holding) -> Job:
        """Queue pictures; notes: on what was asked for; holding: the memory of its own. Raises
        UserError for what is out of bounds, ApiError 429.
        """
        settings = self.settings
        request.check(self.catalogue, settings.limits, settings.fast, settings.engine)
        job = Job("generate", request, request.settings(), notes=list(notes), holding=holding)
        holding.keep()  # the job may end before the request does
        try:
            return self.jobs.submit(job)
        except ApiError:
            holding.release()
            raise

    async def call(
        self,
        work: Callable[[], Any],
        gone: Gone,
        kind: str = "annotate",
        theirs: dict[str, Job] | None = None,
    ) -> tuple[Any, list[str]]:
        """Run a short function on the worker's thread, before what is queued, and wait for its
        result and the notes on it. It is cancelled when the client is gone. theirs: holds the job
        while it is open.

        Raises ApiError: 422 for a UserError, 409 where it was cancelled, 503 where it takes too
        long, 500 for anything else.
        """
        job = self.jobs.submit(Job(kind, work, kept=False, waited=True), front=True)
        seconds = self.settings.limits.annotate_seconds
        theirs = {} if theirs is None else theirs
        theirs[job.id] = job
        try:
            await self.wait(job, gone, seconds)
            if job.is_open:
                raise ApiError(503, f"The server is busy: no answer after {seconds:g} seconds.")
            check_answered(job)
            return job.answer, job.notes
        finally:
            del theirs[job.id]
            self.jobs.cancel(job)
            job.answer = None

    async def wait(self, job: Job, gone: Gone, seconds: float = math.inf) -> None:
        """Until a job has ended, or so many seconds have passed; it is cancelled when the client
        is gone.
        """
        until = time.monotonic() + seconds
        while job.is_open and (left := until - time.monotonic()) > 0:
            await self.jobs.wait(job, min(left, LOOK_SECONDS))
            if job.is_open and await gone():
                self.jobs.cancel(job)

    def run_control(self, name: str) -> Entry | None:
        """The control that a run has trained, if it is there."""
        return self.catalogue.controls.get(f"runs/{name}")

    def _trained(self, name: str) -> None:
        """A run has ended: its control, or a newer one, can be used."""
        folder = runs_folder(self.settings) / name / "control"
        if folder.is_dir():
            self.catalogue.add_control(f"runs/{name}", folder)
            self.models.forget(f"runs/{name}")

    def remove_run(self, name: str) -> int:
        """A run that is not at work; its control cannot be chosen any more. Returns how many bytes
        it took. Raises ApiError 404, 409.
        """
        count = self.trainings.remove(name)
        self.catalogue.controls.pop(f"runs/{name}", None)
        self.models.forget(f"runs/{name}")
        return count

    def remove_set(self, id: str) -> int:
        """An uploaded data set. Returns how many bytes it took. Raises ApiError 404, and 409 while
        a training or a measurement is at work, which may read it.
        """
        path = uploads_folder(self.settings) / id
        if self.catalogue.datasets.get(id, _NONE).path != str(path):
            raise ApiError(404, "There is no such uploaded data set.")
        if any(job.is_open and job.kind in ("train", "evaluate") for job in self.jobs.listed()):
            raise ApiError(409, "A training or measurement is at work, which may read the set.")
        count = remove_set(self.settings, id)
        self.catalogue.datasets.pop(id, None)
        return count

    def _list_made(self) -> None:
        """What earlier runs of the server have trained, and what was uploaded to them."""
        sweep(self.settings)
        for name in names_of_runs(self.settings):
            self._trained(name)
        uploads = uploads_folder(self.settings)
        for folder in sorted(uploads.iterdir()) if uploads.is_dir() else ():
            if (folder / "metadata.jsonl").is_file():
                self.catalogue.add_dataset(folder.name, folder)

    def _warm(self) -> None:
        """Load what the first picture needs; it imports torch and diffusers too."""
        from zeroconv.generation import generate
        from zeroconv.generation.previews import preview_of

        base = self.models.base(self.catalogue.default)
        with noted():  # what there is to note of one step is for nobody
            generate(base, "", steps=1, height=64, width=64)
        if not self.jobs.waiting():
            preview_of(base)


def check_device(settings: ServerSettings) -> None:
    """Raise UserError for a device or dtype that this machine does not have; what every machine has
    needs no torch.
    """
    if settings.device in ("auto", "cpu") and settings.dtype in ("auto", "float32"):
        return
    from zeroconv.backbones.devices import pick_device, pick_dtype

    pick_dtype(settings.dtype, pick_device(settings.device))


def check_answered(job: Job) -> None:
    """Raise ApiError for a waited job that has ended without an answer."""
    if job.state == "cancelled":
        raise ApiError(409, "It was cancelled.")
    if job.state != "done":
        status = 500 if (job.error or "").startswith("Internal error") else 422
        raise ApiError(status, job.error or "The server was stopped.")


def _call(batch: Sequence[Job]) -> None:
    for job in batch:
        answer = job.work()
        if not job.cancelling:
            job.answer = answer
