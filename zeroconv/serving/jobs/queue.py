"""All jobs of a server, and the bounded queue of those that wait."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zeroconv.serving.errors import ApiError, logged
from zeroconv.serving.jobs.events import Listeners
from zeroconv.serving.jobs.job import Cancelled, Job

PREVIEW_SECONDS = 0.2  # between two previews of a job
TELL_SECONDS = 0.1  # between two states of a running job that listeners hear of
MOST_DRAWABLE = 20  # jobs that have ended and whose last preview can still be drawn
DAYS = 90.0  # after which a job that has ended is dropped


class Jobs:
    """All jobs of this run of the server. Safe to call from any thread."""

    def __init__(
        self,
        most_queued: int,
        most_kept: int,
        record: Callable[[Job], None],
        days: float = DAYS,
    ) -> None:
        """record(job) writes the state of a kept job where it survives the process. most_kept: of
        each kind, of jobs that have ended, and none that is older than `days`.
        """
        self._most_queued, self._most_kept, self._record = most_queued, most_kept, record
        self._seconds = days * 86400
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: list[Job] = []
        self._wake = threading.Condition()
        self._drawable: deque[Job] = deque()
        self._closed = self._held = False
        self.listeners = Listeners()

    # ---------------------------------------------------------------- for requests

    def submit(self, job: Job, front: bool = False) -> Job:
        """Queue a job, at the front where somebody waits for a small answer. Raises ApiError 429
        where the queue is full.
        """
        with self._wake:
            if len(self._queue) >= self._most_queued:
                raise ApiError(429, f"{len(self._queue)} jobs wait already; try again later.")
            self.add(job)
            self._queue.insert(0, job) if front else self._queue.append(job)
            self._wake.notify_all()
        return job

    def add(self, job: Job) -> Job:
        """List a job that is run elsewhere than by the worker."""
        with self._wake:
            self._jobs[job.id] = job
            self._forget()
        self._save(job)
        self.listeners.notify(job.id)
        return job

    def get(self, id: str) -> Job:
        """Raises ApiError 404."""
        job = self._jobs.get(id)
        if job is None:
            raise ApiError(404, "There is no such job; the newest are kept.")
        return job

    def listed(self) -> list[Job]:
        """Those that are kept, and open ones that somebody waits for; the newest first."""
        with self._wake:
            return [job for job in reversed(self._jobs.values()) if job.listed]

    def position(self, job: Job) -> int | None:
        """How many jobs come before a queued one."""
        with self._wake:
            return self._queue.index(job) if job in self._queue else None

    def waiting(self) -> int:
        return len(self._queue)

    def running(self) -> list[Job]:
        with self._wake:
            return [job for job in self._jobs.values() if job.state == "running"]

    def cancel(self, job: Job) -> None:
        """A queued one ends at once, a running one at its next step."""
        with self._wake:
            waiting = job in self._queue
            if waiting:
                self._queue.remove(job)
        if waiting:
            self.end(job, "cancelled")
        elif job.is_open:
            job.cancelling = True
            self.listeners.notify(job.id)

    async def wait(self, job: Job, seconds: float | None = None) -> Job:
        """Until a job has ended, or so many seconds have passed."""
        until = None if seconds is None else time.monotonic() + seconds
        with self.listeners.listening() as listener:
            while job.is_open:
                left = 5.0 if until is None else until - time.monotonic()
                if left <= 0:
                    break
                await listener.changed(min(left, 5.0))
        return job

    # ---------------------------------------------------------------- for the worker

    def take(self, joins: Callable[[Job, Job, int], bool], size: int) -> list[Job]:
        """Wait for the first job; it is taken with those behind it that can be computed together,
        `joins(first, other, taken)`, `size` jobs at most. An empty list when the queue is closed.
        """
        with self._wake:
            while (not self._queue or self._held) and not self._closed:
                self._wake.wait()
            if self._closed:
                return []
            taken = [self._queue.pop(0)]
            for job in list(self._queue):
                if len(taken) >= size:
                    break
                if joins(taken[0], job, len(taken)):
                    self._queue.remove(job)
                    taken.append(job)
        for job in taken:
            self.start(job)
        return taken

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the worker takes no job, so that those that come can be computed together."""
        with self._wake:
            self._held = True
        try:
            yield
        finally:
            with self._wake:
                self._held = False
                self._wake.notify_all()

    def check_open(self) -> None:
        """Raise Cancelled where the queue is closed."""
        if self._closed:
            raise Cancelled

    def start(self, job: Job) -> None:
        job.state, job.started = "running", time.time()
        self._save(job)
        self.listeners.notify(job.id)

    def changed(self, job: Job) -> None:
        """Its progress; of changes close together the first is told, and the end."""
        now = time.monotonic()
        if now - job.told >= TELL_SECONDS:
            job.told = now
            self.listeners.notify(job.id)

    def end(self, job: Job, state: str, error: str | None = None) -> None:
        """Once; later calls change nothing."""
        with self._wake:
            if not job.is_open:
                return
            job.error, job.finished = error, time.time()
            if state == "done":
                job.progress = 1.0
            job.state = state
        job.work = None  # pictures that are not needed any more
        self._keep_preview(job)
        if job.holding is not None:
            job.holding.release()
        if self._save(job):
            job.request = {}  # it is recorded; of poses it is large
        job.ended.set()
        self.listeners.notify(job.id)

    def close(self) -> list[Job]:
        """Take no more; returns the jobs that were not begun."""
        with self._wake:
            self._closed, left, self._queue = True, self._queue, []
            self._wake.notify_all()
            for job in self._jobs.values():
                job.cancelling = True
        return left

    def _keep_preview(self, job: Job) -> None:
        """A page may ask for the last one a moment after the end."""
        with self._wake:
            if job.draw_preview is not None:
                self._drawable.append(job)
            while len(self._drawable) > MOST_DRAWABLE:
                self._drawable.popleft().draw_preview = None

    def _save(self, job: Job) -> bool:
        """Whether it is recorded. A history that cannot be written, as on a full disk, stops no
        work.
        """
        if job.kept:
            try:
                self._record(job)
            except Exception as error:
                logged(error, "the history")
                return False
        return True

    def _forget(self) -> None:
        """Drop the oldest of each kind that have ended. The lock is held."""
        now, counts = time.time(), Counter[str]()
        for job in list(reversed(self._jobs.values())):
            if not job.is_open:
                counts[job.kind] += 1
                if counts[job.kind] > self._most_kept or now - job.created > self._seconds:
                    del self._jobs[job.id]
