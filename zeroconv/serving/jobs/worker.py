"""One thread owns the models. It takes jobs in their order, and computes together what can be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from zeroconv.errors import UserError
from zeroconv.serving.errors import logged, sentence_of
from zeroconv.serving.generation import Generation
from zeroconv.serving.jobs.job import Cancelled, Job
from zeroconv.serving.jobs.queue import Jobs
from zeroconv.serving.notes import noted
from zeroconv.stopping import stoppable

MOST_JOBS = 32  # of one call
MOST_PICTURES = 8  # that ride along with the first job's, together with its own


class Worker:
    """kinds: what is done for jobs of a kind, which is given a list of them; of all but "generate"
    a list of one. warm: what is done first.
    """

    def __init__(
        self,
        jobs: Jobs,
        kinds: dict[str, Callable[[Sequence[Job]], None]],
        warm: Callable[[], None] | None = None,
    ) -> None:
        self.jobs, self.kinds, self.warm = jobs, kinds, warm
        self._thread = threading.Thread(target=self._run, name="zeroconv worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 30.0) -> None:
        """After the queue is closed: wait for the work at hand, which is cancelled."""
        self._thread.join(seconds)

    def _run(self) -> None:
        if self.warm is not None:
            try:
                with stoppable(self.jobs.check_open):
                    self.warm()
            except Cancelled:
                pass
            except Exception as error:  # the first request tells its client the reason
                if not isinstance(error, UserError):
                    logged(error, "loading the default base")
        while batch := self.jobs.take(joins, MOST_JOBS):
            try:
                self._work(batch)
            except Exception as error:  # the worker lives on
                for job in batch:
                    self.jobs.end(job, "failed", logged(error, f"a job of kind {job.kind}"))

    def _work(self, batch: Sequence[Job]) -> None:
        """Whatever goes wrong with several is tried again one by one: it is the fault of one. It
        stops where none of them is wanted any more.
        """

        def check() -> None:
            if all(job.cancelling for job in batch):
                raise Cancelled

        with noted() as notes, stoppable(check):
            try:
                self.kinds[batch[0].kind](batch)
            except Cancelled:
                pass
            except Exception as error:
                if len(batch) > 1:
                    for job in batch:
                        if len(job.results) < job.work.count:
                            self._work([job])
                else:
                    where = f"a job of kind {batch[0].kind}"
                    self._note(batch, notes)
                    self.jobs.end(batch[0], "failed", sentence_of(error, where))
        self._note(batch, notes)
        for job in batch:
            self.jobs.end(job, "cancelled" if job.cancelling else "done")

    def _note(self, batch: Sequence[Job], notes: Sequence[str]) -> None:
        for job in batch:
            if job.is_open:
                job.notes += [note for note in notes if note not in job.notes]


def joins(first: Job, other: Job, taken: int) -> bool:
    """Whether another queued job can be computed in the first one's call."""
    if first.kind != "generate" or other.kind != "generate":
        return False
    one, two = first.work, other.work
    if not isinstance(one, Generation) or not isinstance(two, Generation):
        return False
    if one.alone or two.alone:
        return False
    # as counts are usually 1, the number of jobs stands for that of pictures
    return (taken + 1) * max(one.count, two.count) <= MOST_PICTURES and key_of(first) == key_of(
        other
    )


def key_of(job: Job) -> tuple:
    """`Generation.shared`, computed once: it hashes pictures."""
    if "shared" not in job.__dict__:
        job.__dict__["shared"] = job.work.shared()
    return job.__dict__["shared"]
