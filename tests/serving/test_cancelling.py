"""Every job can be cancelled: small answers that somebody waits for, too."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import pytest

from tests.helpers.tiny_server import as_base64, made, picture
from zeroconv.serving.a1111 import controlnet
from zeroconv.serving.errors import ApiError
from zeroconv.serving.v1 import annotate, train
from zeroconv.stopping import stop_if_asked


@pytest.fixture
def endless(monkeypatch) -> threading.Event:
    """Hints and plans take a minute where nobody stops them; set when one has begun."""
    begun = threading.Event()

    def work(*args: Any, **named: Any) -> Any:
        begun.set()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            stop_if_asked()
            time.sleep(0.005)

    for module, name in ((annotate, "draw"), (controlnet, "_detected"), (train, "plan")):
        monkeypatch.setattr(module, name, work)
    return begun


def listed(client, kind: str) -> list[dict[str, Any]]:
    return [job for job in client.get("/api/v1/jobs").json()["jobs"] if job["kind"] == kind]


HINT = ("/api/v1/annotate", {"condition": "canny", "picture": as_base64(picture())}, "annotate")
PLAN = ("/api/v1/train/plan", {"data": "playroom", "examples": 32}, "plan")
BESIDE = {"controlnet_module": "canny", "controlnet_input_images": [as_base64(picture())]}
DETECT = ("/controlnet/detect", BESIDE, "annotate")


@pytest.mark.parametrize(("path", "body", "kind"), [HINT, PLAN, DETECT], ids=lambda v: str(v)[:20])
def test_cancelling_a_small_answer_by_its_job(client, endless, path, body, kind) -> None:
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.post(path, json=body)))
    asking.start()
    assert endless.wait(30)
    (job,) = listed(client, kind)
    assert job["state"] == "running" and job["result"] is None
    assert client.delete(f"/api/v1/jobs/{job['id']}").status_code == 200
    asking.join(20)
    assert answers[0].status_code == 409 and "cancelled" in answers[0].text
    assert listed(client, kind) == []  # it is of no use to others
    assert made(client)["results"]


def test_cancelling_detect_by_interrupt(client, endless) -> None:
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.post(*DETECT[:1], json=BESIDE)))
    asking.start()
    assert endless.wait(30)
    client.post("/sdapi/v1/interrupt")
    asking.join(20)
    assert answers[0].status_code == 409


def test_cancelling_when_the_client_is_gone(client) -> None:
    studio, begun = client.app.state.studio, threading.Event()

    def work() -> None:
        begun.set()
        for _ in range(6000):
            stop_if_asked()
            time.sleep(0.01)

    async def gone() -> bool:
        return begun.is_set()

    with pytest.raises(ApiError, match="cancelled"):
        client.portal.call(partial(studio.call, work, gone))
    assert made(client)["results"]


def test_cancelling_nothing_is_told_to_others_of_an_answer(client) -> None:
    """A hint is as large as its picture: it is in no event and no list."""
    studio = client.app.state.studio
    kept = studio.jobs.submit
    seen: list[Any] = []
    studio.jobs.submit = lambda job, front=False: seen.append(job) or kept(job, front)
    try:
        assert client.post(HINT[0], json=HINT[1]).json()["hint"]
    finally:
        studio.jobs.submit = kept
    (job,) = seen
    assert job.answer is None and job.to_json()["result"] is None and not job.listed
    assert job.id not in {row["id"] for row in studio.history.jobs(500)}


def test_cancelling_stops_between_loading_and_drawing_of_a_picture(client, monkeypatch) -> None:
    """Nothing but the steps asked before."""
    from zeroconv.serving.jobs import making

    begun = threading.Event()

    def endless(*args: Any) -> None:
        begun.set()
        for _ in range(6000):
            stop_if_asked()
            time.sleep(0.01)

    monkeypatch.setattr(making, "hint_of", endless)
    controls = [{"control": "tiny_canny", "source": as_base64(picture())}]
    body = {"prompt": "a", "steps": 1, "controls": controls}
    job = client.post("/api/v1/generate", json=body).json()
    assert begun.wait(30)
    client.delete(f"/api/v1/jobs/{job['id']}")
    until = time.monotonic() + 20
    while client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "running":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"
