"""One call of `generate` for several jobs: whose its pictures are, how far it is, previews."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from zeroconv.serving.generation import Generation
from zeroconv.serving.jobs.job import Cancelled, Job
from zeroconv.serving.jobs.queue import PREVIEW_SECONDS, Jobs
from zeroconv.serving.pixels import preview_jpeg


@dataclass
class Slot:
    """One picture of the call: whose it is, and which of its job's."""

    job: Job
    request: Generation
    number: int  # within its job

    @property
    def seed(self) -> int:
        return self.request.seed + self.number


@dataclass
class Call:
    """The jobs of one call of `generate`, and how far it is."""

    jobs: Sequence[Job]
    jobs_list: Jobs
    slots: list[Slot] = field(default_factory=list)
    finished: int = 0  # pictures
    passes: int = 1  # of each batch
    passed: int = 0  # of this batch
    last_step: int = 0

    def __post_init__(self) -> None:
        # without pictures of an earlier try, which are kept
        self.slots = [
            Slot(j, j.work, i) for j in self.jobs for i in range(len(j.results), j.work.count)
        ]

    def step(self, step: int, steps: int, latents: Any, preview: Any) -> None:
        """A step of some batch. Raises Cancelled where no job of the call is wanted any more."""
        if step <= self.last_step:  # the next pass, or the next batch
            self.passed += 1
        self.last_step = step
        rows = self.slots[self.finished : self.finished + len(latents)]
        share = (min(self.passed, self.passes - 1) + step / steps) / self.passes
        for job in self.jobs:
            here = sum(slot.job is job for slot in rows)
            left = sum(slot.job is job for slot in self.slots[self.finished :])
            done = job.work.count - left
            job.progress = min(0.99, (done + here * share) / job.work.count)
            job.step, job.steps = step, steps
        self._preview(rows, latents, preview)
        for job in self.jobs:
            self.jobs_list.changed(job)
        if all(job.cancelling for job in self.jobs):
            raise Cancelled

    def _preview(self, rows: Sequence[Slot], latents: Any, preview: Any) -> None:
        """What a small picture can be made of, for each job that wants one: of its first picture
        in the batch. It is made when a client asks for it.
        """
        now = time.monotonic()
        for i, slot in enumerate(rows):
            job = slot.job
            if slot.request.previews and now - job.pictured >= PREVIEW_SECONDS:
                part = latents[i : i + 1].detach().clone()
                job.pictured, job.preview = now, job.preview + 1
                job.draw_preview = partial(_drawn, preview, part)

    def batch_ended(self, count: int) -> None:
        self.finished += count
        self.passed = self.last_step = 0


def _drawn(preview: Any, latents: Any) -> bytes:
    """The JPEG of latents (1, C, h, w)."""
    return preview_jpeg(preview(latents)[0])
