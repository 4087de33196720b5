"""What is kept of jobs that have ended: so many of each kind, for so long, and their sheets."""

from __future__ import annotations

import time

import pytest
from PIL import Image

from zeroconv.serving.jobs.history import History
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.keeping import Bounds, measured_folder
from zeroconv.serving.jobs.queue import Jobs

IMAGE = Image.new("RGB", (8, 8), "red")


def ended(history: History, kind: str = "generate", age: float = 0.0) -> Job:
    """age: in days."""
    job = Job(kind, None, {"prompt": "a"}, created=time.time() - age * 86400)
    history.record(job)
    job.state = "done"
    history.record(job)
    return job


def sheet(history: History, job: Job):
    folder = measured_folder(history.folder)
    folder.mkdir(exist_ok=True)
    path = folder / f"{job.id}-0-hint.png"
    IMAGE.save(path)
    return path


def ids(history: History) -> list[str]:
    return [job["id"] for job in history.jobs(1000)]


@pytest.fixture
def history(tmp_path):
    history = History(tmp_path, Bounds(most=3, days=10))
    yield history
    history.close()


def test_keeping_the_newest_jobs_of_each_kind(history) -> None:
    measured = ended(history, "evaluate")
    path = sheet(history, measured)
    running = Job("generate", None)
    history.record(running)
    jobs = [ended(history) for _ in range(8)]
    assert set(ids(history)) == {measured.id, running.id, *(job.id for job in jobs[-3:])}
    assert path.is_file()  # pictures of today push out no measurement


def test_keeping_sheets_as_long_as_their_measurement(history) -> None:
    paths = [sheet(history, ended(history, "evaluate")) for _ in range(5)]
    ended(history, "evaluate")
    assert [path.is_file() for path in paths] == [False, False, False, True, True]


def test_keeping_no_job_that_is_too_old(history) -> None:
    old, young = ended(history, age=9.99), ended(history, age=1)
    assert set(ids(history)) == {old.id, young.id}
    old = ended(history, "evaluate", age=11)
    assert set(ids(history)) & {old.id} == set()


def test_keeping_at_the_start_what_a_kill_left(tmp_path) -> None:
    history = History(tmp_path)
    old, job = ended(history, "evaluate", age=11), ended(history, "evaluate")
    paths = [sheet(history, old), sheet(history, job), sheet(history, Job("evaluate", None))]
    other = measured_folder(tmp_path) / "mine.png"
    other.write_bytes(b"not the server's")
    history.close()
    history = History(tmp_path, Bounds(days=10))
    assert ids(history) == [job.id]
    assert [path.is_file() for path in paths] == [False, True, False] and other.is_file()
    history.close()


def test_keeping_pictures_without_their_job(history) -> None:
    job = ended(history)
    picture = history.add(job.id, IMAGE, {"prompt": "a"}, {"prompt": "a"})["id"]
    for _ in range(4):
        ended(history)
    assert history.job(job.id) is None
    assert [entry["id"] for entry in history.search()] == [picture]
    assert history.path(picture, ".png").is_file()


def test_keeping_jobs_in_memory_by_kind_and_age() -> None:
    jobs = Jobs(10, 2, lambda job: None, days=10)
    measured = jobs.add(Job("evaluate", None))
    jobs.end(measured, "done")
    for _ in range(5):
        job = jobs.add(Job("generate", None, {"prompt": "a" * 1000}))
        job.draw_preview = lambda: b""
        jobs.end(job, "done")
    jobs.add(Job("generate", None))
    kinds = [job.kind for job in jobs.listed()]
    assert kinds == ["generate", "generate", "generate", "evaluate"]
    assert job.request == {}  # it is recorded
    measured.created -= 11 * 86400
    jobs.add(Job("generate", None))
    assert measured not in jobs.listed()


def test_keeping_previews_of_few_jobs_that_have_ended() -> None:
    from zeroconv.serving.jobs.queue import MOST_DRAWABLE

    jobs = Jobs(10, 100, lambda job: None)
    ended = [jobs.add(Job("generate", None)) for _ in range(MOST_DRAWABLE + 3)]
    for job in ended:
        job.draw_preview = lambda: b""
        jobs.end(job, "done")
    assert [job.draw_preview is None for job in ended[:4]] == [True, True, True, False]


def test_keeping_a_request_whose_record_failed() -> None:
    def full(job: Job) -> None:
        raise OSError("no room")

    jobs = Jobs(10, 2, full)
    job = jobs.add(Job("generate", None, {"prompt": "a"}))
    jobs.end(job, "done")
    assert job.request == {"prompt": "a"}
