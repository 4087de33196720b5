"""What the routes share: settings, names, the queue, the worker and the history of one server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zeroconv.serving.catalogue import Catalogue, list_models
from zeroconv.serving.errors import ApiError
from zeroconv.serving.generation import Generation
from zeroconv.serving.history import History
from zeroconv.serving.jobs import Job, Jobs
from zeroconv.serving.making import Maker
from zeroconv.serving.models import Models
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.worker import Worker


class Studio:
    """Made before the server listens, so that mistakes in its settings stop it."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises UserError."""
        self.settings = settings
        self.catalogue: Catalogue = list_models(settings)
        self.history = History(settings.data)
        self.lost = self.history.mark_lost()
        limits = settings.limits
        self.jobs = Jobs(limits.queue, limits.kept, self.history.record)
        self.models = Models(settings, self.catalogue)
        maker = Maker(self.models, self.history, self.jobs)
        kinds: dict[str, Any] = {"generate": maker.make, "call": _call}
        self.stopping = False
        self.worker = Worker(self.jobs, kinds, self._warm if settings.warm else None)

    def start(self) -> None:
        self.worker.start()

    def stop(self) -> None:
        """Jobs that were not begun are lost, as their records say at the next start."""
        self.stopping = True
        self.jobs.close()
        self.worker.stop()
        self.history.close()

    def submit(self, request: Generation) -> Job:
        """Queue pictures. Raises UserError for what is out of bounds, ApiError 429."""
        request.check(self.catalogue, self.settings.limits)
        return self.jobs.submit(Job("generate", request, request.settings()))

    async def call(self, work: Callable[[], Any]) -> tuple[Any, list[str]]:
        """Run a short function on the worker's thread, before what is queued, and wait for its
        result and the notes on it. Raises ApiError: 422 for a UserError, 503 where it takes too
        long, 500 for anything else.
        """
        job = self.jobs.submit(Job("call", work, kept=False), front=True)
        seconds = self.settings.limits.annotate_seconds
        await self.jobs.wait(job, seconds)
        if job.is_open:
            self.jobs.cancel(job)
            raise ApiError(503, f"The server is busy: no answer after {seconds:g} seconds.")
        if job.state != "done":
            status = 500 if (job.error or "").startswith("Internal error") else 422
            raise ApiError(status, job.error or "The server was stopped.")
        return job.result, job.notes

    def _warm(self) -> None:
        """Load what the first picture needs; it imports torch and diffusers too."""
        from zeroconv.generation import generate

        base = self.models.base(self.catalogue.default)
        generate(base, "", steps=1, height=64, width=64)


def _call(batch: Sequence[Job]) -> None:
    for job in batch:
        job.result = job.work()
