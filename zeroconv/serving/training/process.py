"""Trainings, one at a time, each in a process of its own: it has its own memory, and a kill of the
server ends it too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroconv.serving.errors import ApiError, logged, one_sentence
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.queue import Jobs
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.training.recipes import recipe_file, runs_folder, write_recipe
from zeroconv.serving.training.removing import remove_cache, remove_run
from zeroconv.serving.training.runs import last_step
from zeroconv.training.recipes.recipe import Recipe

MOST_WAITING = 10
POLL_SECONDS = 0.5
SECONDS_TO_SAVE = 60  # after which a process that was asked to stop is killed
INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
LONGEST_LOG = 20_000  # bytes of a log's end that are read
_PDEATHSIG = 1  # of prctl, linux/prctl.h


@dataclass(frozen=True)
class Training:
    """What a job of the kind "train" is to do."""

    name: str


class Trainings:
    """done(name): called when a run has ended well, so that its control can be used."""

    def __init__(self, settings: ServerSettings, jobs: Jobs, done: Callable[[str], None]) -> None:
        self.settings, self.jobs, self.done = settings, jobs, done
        self._queue: list[Job] = []
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="zeroconv trainings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop what runs, saved, and take no more."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(SECONDS_TO_SAVE)

    def begin(
        self, name: str, recipe: Recipe, request: dict[str, Any], notes: Sequence[str]
    ) -> Job:
        """Queue a new run. Raises ApiError: 409 for a name that is taken, 429."""
        path = recipe_file(self.settings, name)
        with self._wake:  # of several requests with one name the first has it
            if path.exists():
                raise ApiError(409, f"There is a run {name} already; name another, or resume it.")
            write_recipe(path, recipe)
            try:
                return self.submit(name, request, notes)
            except ApiError:
                path.unlink()
                raise

    def submit(self, name: str, request: dict[str, Any], notes: Sequence[str] = ()) -> Job:
        """Raises ApiError: 409 for a run that is at work, 429 where too many wait."""
        with self._wake:
            if self.job_of(name) is not None:
                raise ApiError(409, f"The run {name} is at work already.")
            if len(self._queue) >= MOST_WAITING:
                raise ApiError(429, f"{MOST_WAITING} trainings wait already; try again later.")
            job = Job("train", Training(name), request, notes=list(notes), result={"run": name})
            self.jobs.add(job)
            self._queue.append(job)
            self._wake.notify_all()
        return job

    def remove(self, name: str) -> int:
        """A run that is not at work, with all its files; returns how many bytes. Raises ApiError
        404, 409.
        """
        with self._wake:  # so that nobody resumes it meanwhile
            if self.job_of(name) is not None:
                raise ApiError(409, f"The run {name} is at work; stop it first.")
            return remove_run(self.settings, name)

    def remove_cache(self) -> int:
        """What trainings have computed beforehand; returns how many bytes. Raises ApiError 409."""
        with self._wake:
            if any(job.kind == "train" and job.is_open for job in self.jobs.listed()):
                raise ApiError(409, "A training is at work, which reads the cache; stop it first.")
            return remove_cache(self.settings)

    def job_of(self, name: str) -> Job | None:
        """The open job of a run."""
        for job in self.jobs.listed():
            if job.kind == "train" and job.is_open and (job.result or {}).get("run") == name:
                return job
        return None

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        while (job := self._next()) is not None:
            name = job.work.name
            self.jobs.start(job)
            try:
                self._train(job, name)
            except Exception as error:
                self.jobs.end(job, "failed", logged(error, f"the training {name}"))

    def _next(self) -> Job | None:
        with self._wake:
            while not self._closed:
                self._drop_cancelled()
                if self._queue:
                    return self._queue.pop(0)
                self._wake.wait(POLL_SECONDS)
        return None

    def _drop_cancelled(self) -> None:
        """End those that wait and are not wanted any more."""
        with self._wake:
            gone = [job for job in self._queue if job.cancelling]
            self._queue = [job for job in self._queue if not job.cancelling]
        for job in gone:
            self.jobs.end(job, "cancelled")

    def _train(self, job: Job, name: str) -> None:
        log = runs_folder(self.settings) / f"{name}.log"
        process = start_training(recipe_file(self.settings, name), log)
        stopping = False
        try:
            while process.poll() is None:
                self._drop_cancelled()
                if (job.cancelling or self._closed) and not stopping:
                    stopping = True
                    process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS if not stopping else SECONDS_TO_SAVE)
                    continue
                if stopping:
                    process.kill()
                self._progress(job, name)
        finally:
            if process.poll() is None:
                process.kill()
        self._progress(job, name)
        notes, error = read_log(log)
        job.notes += [note for note in notes if note not in job.notes]
        if process.returncode == 0:
            self.done(name)
            self.jobs.end(job, "done")
        elif stopping or process.returncode in INTERRUPTED:
            self.jobs.end(job, "cancelled")
        else:
            self.jobs.end(job, "failed", error or "The training ended; see its log.")

    def _progress(self, job: Job, name: str) -> None:
        with suppress(Exception):  # of a log that is being written
            job.step, job.steps = last_step(self.settings, name)
            job.progress = min(0.99, job.step / job.steps)
            self.jobs.changed(job)


def start_training(recipe: Path, log: Path) -> subprocess.Popen[bytes]:
    """`zeroconv train` of a recipe, its words in a log. It ends with this process."""
    command = [sys.executable, "-m", "zeroconv.cli", "train", str(recipe)]
    with log.open("wb") as words:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            cwd=recipe.parent,
            env=_environment(),
            start_new_session=True,  # Ctrl-C at the terminal is for the server
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _environment() -> dict[str, str]:
    """Of the child: it finds this package, wherever the server was started."""
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # before any fork


def _end_with_parent() -> None:
    """Linux sends the signal when the thread that started the process ends."""
    if _libc is not None:
        _libc.prctl(_PDEATHSIG, signal.SIGTERM)


def read_log(path: Path) -> tuple[list[str], str | None]:
    """The notes and the error in what a training printed."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LONGEST_LOG))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return [], None
    notes = [one_sentence(line[6:]) for line in lines if line.startswith("note: ")]
    errors = [one_sentence(line[10:]) for line in lines if line.startswith("zeroconv: ")]
    return notes[:100], errors[-1] if errors else None
