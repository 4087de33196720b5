"""Jobs: their states, events, cancelling, previews, the bounded queue, and what a kill leaves."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.helpers.tiny_server import (
    QUICK,
    as_base64,
    ended,
    made,
    opened,
    picture,
    running,
    settings_for,
)
from zeroconv.serving.jobs.history import LOST, History
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.queue import Jobs

LONG = {**QUICK, "steps": 150, "seed": 1}


def started(client, body=LONG) -> dict:
    job = client.post("/api/v1/generate", json=body).json()
    while client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "queued":
        time.sleep(0.005)
    return job


def events_of(client, job) -> list[tuple[str, dict]]:
    text = client.get(f"/api/v1/jobs/{job['id']}/events").text
    parts = [part.split("\n") for part in text.split("\n\n") if part.startswith("event:")]
    return [(name[7:], json.loads(data[6:])) for name, data in parts]


def test_jobs_events_end_with_the_result(client) -> None:
    job = client.post("/api/v1/generate", json={**QUICK, "previews": True, "steps": 6}).json()
    events = events_of(client, job)
    assert events[-1][0] == "done" and events[-1][1]["results"]
    assert {name for name, _ in events[:-1]} <= {"progress", "preview"}
    assert [data["progress"] for _, data in events] == sorted(d["progress"] for _, d in events)
    # of a job that has ended: one event
    assert [name for name, _ in events_of(client, job)] == ["done"]


def test_jobs_preview_shows_what_is_sampled(client) -> None:
    job = made(client, previews=True, steps=2)
    assert job["preview"] >= 1
    answer = client.get(f"/api/v1/jobs/{job['id']}/preview.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert max(opened(answer.content).size) == 256
    plain = made(client)
    assert plain["preview"] == 0
    assert client.get(f"/api/v1/jobs/{plain['id']}/preview.jpg").status_code == 404


def test_jobs_running_is_cancelled_at_its_next_step(client) -> None:
    job = started(client)
    assert client.delete(f"/api/v1/jobs/{job['id']}").status_code == 200
    job = ended(client, job)
    assert job["state"] == "cancelled" and job["results"] == [] and job["step"] < 150
    assert made(client)["results"]  # the worker goes on


def test_jobs_queued_is_cancelled_at_once(client) -> None:
    with client.app.state.studio.jobs.held():
        job = client.post("/api/v1/generate", json=QUICK).json()
        assert job["position"] == 0
        answer = client.delete(f"/api/v1/jobs/{job['id']}").json()
        assert answer["state"] == "cancelled" and answer["position"] is None
    assert client.delete(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_jobs_one_of_a_batch_is_cancelled(client) -> None:
    with client.app.state.studio.jobs.held():
        jobs = [
            client.post("/api/v1/generate", json={**LONG, "steps": 12, "seed": i}).json()
            for i in range(2)
        ]
    while client.get(f"/api/v1/jobs/{jobs[0]['id']}").json()["state"] == "queued":
        time.sleep(0.005)
    client.delete(f"/api/v1/jobs/{jobs[0]['id']}")
    first, second = (ended(client, job) for job in jobs)
    assert first["state"] == "cancelled" and first["results"] == []
    assert second["state"] == "done" and len(second["results"]) == 1


def test_jobs_answers_come_before_what_is_queued(client) -> None:
    with client.app.state.studio.jobs.held():
        job = client.post("/api/v1/generate", json=LONG).json()
        body = {"condition": "canny", "picture": as_base64(picture())}
        answers = []
        asked = threading.Thread(
            target=lambda: answers.append(client.post("/api/v1/annotate", json=body))
        )
        asked.start()
        while client.get(f"/api/v1/jobs/{job['id']}").json()["position"] != 1:
            time.sleep(0.005)
    asked.join(30)
    assert answers[0].status_code == 200
    client.delete(f"/api/v1/jobs/{job['id']}")
    ended(client, job)


def test_jobs_unknown_is_not_there(client) -> None:
    for path in ("x", "x/events", "x/preview.jpg", "../../etc/passwd"):
        assert client.get(f"/api/v1/jobs/{path}").status_code == 404


@pytest.mark.slow
def test_jobs_that_a_server_left_open_are_lost(server_models, tmp_path) -> None:
    data = tmp_path / "data"
    with running(settings_for(server_models, data)) as client:
        done = made(client)
    history = History(data)
    for state in ("queued", "running"):
        job = Job("generate", None, {"prompt": state})
        job.state = state
        history.record(job)
    history.close()
    with running(settings_for(server_models, data)) as client:
        states = [job["state"] for job in client.get("/api/v1/jobs").json()["jobs"]]
        assert sorted(states) == ["done", "lost", "lost"]
        lost = client.get("/api/v1/jobs").json()["jobs"][0]
        assert lost["error"] == LOST
        kept = client.get(f"/api/v1/jobs/{done['id']}").json()
        assert kept["results"] == done["results"]
        assert client.get(kept["results"][0]["picture"]).status_code == 200


def test_jobs_of_a_broken_batch_keep_what_is_made_and_make_the_rest(client, monkeypatch) -> None:
    """The second picture of two cannot be kept: its job is tried again, for that one alone."""
    studio = client.app.state.studio
    real, calls = studio.history.add, []

    def broken(job, image, about, *more):
        calls.append((job, about["seed"]))
        if len(calls) == 2:
            raise OSError("a disk that fails once")
        return real(job, image, about, *more)

    monkeypatch.setattr(studio.history, "add", broken)
    with studio.jobs.held():
        jobs = [
            client.post("/api/v1/generate", json={**QUICK, "count": 2, "seed": seed}).json()
            for seed in (10, 20)
        ]
    done = [ended(client, job) for job in jobs]
    assert [job["state"] for job in done] == ["done", "done"]
    assert [[r["seed"] for r in job["results"]] for job in done] == [[10, 11], [20, 21]]
    assert [seed for _, seed in calls] == [10, 11, 11, 20, 21]


def test_jobs_kept_are_bounded() -> None:
    jobs = Jobs(10, 3, lambda job: None)
    for _ in range(8):
        job = jobs.add(Job("generate", None))
        jobs.end(job, "done")
    assert len(jobs.listed()) <= 4


def test_jobs_events_tell_the_end_also_of_one_that_ends_meanwhile(client, monkeypatch) -> None:
    """The job ends between the sending of its state and the next look at it."""
    from zeroconv.serving.v1 import jobs as routes

    studio = client.app.state.studio
    job = studio.jobs.add(Job("generate", None))
    real = routes.job_json

    def late(studio, one):
        state = real(studio, one)
        studio.jobs.end(one, "done")
        return state

    monkeypatch.setattr(routes, "job_json", late)
    assert events_of(client, {"id": job.id})[-1][0] == "done"
