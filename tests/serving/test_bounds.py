"""What a request may take of the server: values of a body, pixels in memory, people, streams."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from tests.helpers.tiny_server import QUICK, as_base64, ended, picture, running, settings_for
from zeroconv.serving.body import MOST_VALUES, parse_body
from zeroconv.serving.errors import ApiError
from zeroconv.serving.holding import Room, count_pixels
from zeroconv.serving.settings import Limits

# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"steps": 1, "prompt": "a", "steps": 2}', "'steps' twice"),
        (b'{"controls": [{"scale": 1, "scale": 2}]}', "'scale' twice"),
        (b'{"prompt": "\\ud800 a"}', "surrogate"),
        (b'{"prompt": "\\udc00\\ud800"}', "surrogate"),
        (b'{"a": [' + b"[]," * MOST_VALUES + b"1]}", "more than 200,000 values"),
        (b"[" + b'{"a":1},' * MOST_VALUES + b"1]", "more than 200,000 values"),
    ],
    ids=["twice", "twice inside", "half", "halves", "lists", "objects"],
)
@pytest.mark.parametrize("path", ["/api/v1/generate", "/sdapi/v1/txt2img"])
def test_bodies_of_careless_or_hostile_json_are_refused(client, path, body, words) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and words in answer.text


def test_bodies_may_hold_whole_pairs_and_long_pictures() -> None:
    assert parse_body(b'{"prompt": "\\ud83d\\ude00 and \\\\ud800"}')["prompt"] == "😀 and \\ud800"
    assert len(parse_body(b'{"image": "' + b"A" * 5_000_000 + b'"}')["image"]) == 5_000_000


def test_bodies_of_those_without_the_token_are_short(server_models, tmp_path) -> None:
    settings = settings_for(server_models, tmp_path / "data", token="a-long-secret")
    with running(settings) as client:
        answer = client.post("/api/v1/login", json={"token": "x" * 20_000})
        assert answer.status_code == 413 and "10,000 bytes" in answer.json()["error"]


# ---------------------------------------------------------------- pixels in memory


@pytest.fixture(scope="module")
def narrow(server_models, tmp_path_factory):
    """A client of a server that holds no more than three pictures of 64 by 64, and makes none."""
    limits = Limits(held=4 * 64 * 64 * 3, pixels=64 * 64 * 4, queue=2)
    data = tmp_path_factory.mktemp("narrow")
    with running(settings_for(server_models, data, limits=limits)) as client:
        client.app.state.studio.worker.kinds["generate"] = lambda jobs: None  # pictures of nothing
        yield client


def hinted(count: int) -> dict:
    hint = {"control": "tiny_canny", "hint": as_base64(picture())}
    return {**QUICK, "steps": 1, "controls": [hint] * count}


def test_held_pictures_of_one_request_are_bounded(narrow) -> None:
    answer = narrow.post("/api/v1/generate", json=hinted(4))
    assert answer.status_code == 422 and "pixels together" in answer.json()["error"]
    assert narrow.app.state.studio.room.held == 0
    unit = {"enabled": True, "model": "tiny_canny", "image": as_base64(picture())}
    units = {"controlnet": {"args": [unit] * 4}}
    answer = narrow.post("/sdapi/v1/txt2img", json={"steps": 1, "alwayson_scripts": units})
    assert answer.status_code == 422 and "pixels together" in answer.json()["detail"]
    assert narrow.app.state.studio.room.held == 0


def test_held_pictures_of_waiting_jobs_are_bounded(narrow) -> None:
    studio = narrow.app.state.studio
    with studio.jobs.held():
        first = narrow.post("/api/v1/generate", json=hinted(2)).json()
        answer = narrow.post("/api/v1/generate", json=hinted(2))
        assert answer.status_code == 429 and "memory" in answer.json()["error"]
        second = narrow.post("/api/v1/generate", json=hinted(1)).json()
        assert studio.room.held == studio.room.most
    for job in (first, second):
        assert ended(narrow, job)["state"] == "done"
    assert studio.room.held == 0
    job = ended(narrow, narrow.post("/api/v1/generate", json=hinted(3)).json())
    assert job["state"] == "done"


def test_queue_is_bounded(narrow) -> None:
    with narrow.app.state.studio.jobs.held():
        answers = [narrow.post("/api/v1/generate", json={**QUICK, "steps": 1}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        unheard = narrow.post("/sdapi/v1/txt2img", json={"steps": 1})
        assert unheard.status_code == 429 and "wait already" in unheard.json()["detail"]
    for answer in answers[:2]:
        assert ended(narrow, answer.json())["state"] == "done"


def test_held_pictures_of_a_cancelled_job_are_given_back(narrow) -> None:
    studio = narrow.app.state.studio
    with studio.jobs.held():
        job = narrow.post("/api/v1/generate", json=hinted(2)).json()
        narrow.delete(f"/api/v1/jobs/{job['id']}")
        assert studio.room.held == 0


def test_room_counts_what_threads_of_a_request_hold() -> None:
    from contextvars import copy_context

    room = Room(4 * 100)
    with room.request():
        thread = threading.Thread(target=copy_context().run, args=(count_pixels, 60))
        thread.start()
        thread.join()
        assert room.held == 240
        with room.request(), pytest.raises(ApiError, match="fill the memory"):
            count_pixels(60)
    assert room.held == 0
    count_pixels(10**9)  # outside of requests nothing is counted


def test_hints_are_drawn_within_the_servers_pixels(narrow) -> None:
    body = {"condition": "canny", "picture": as_base64(picture()), "width": 16384, "height": 16384}
    answer = narrow.post("/api/v1/annotate", json=body)
    assert answer.status_code == 422 and "too large" in answer.json()["error"]


def test_poses_of_crowds_and_walls_are_refused(narrow) -> None:
    person = {"pose_keypoints_2d": [10, 20, 1] * 18}
    crowd = {"people": [person] * 201, "canvas_width": 64, "canvas_height": 64}
    wall = {"people": [person], "canvas_width": 5000, "canvas_height": 5000}
    for pose, words in ((crowd, "201 people"), (wall, "5000×5000")):
        unit = {"control": "tiny_canny", "pose_json": pose}
        for path, body in (
            ("pose/render", pose),
            ("generate", {**QUICK, "controls": [unit]}),
        ):
            answer = narrow.post(f"/api/v1/{path}", json=body)
            assert answer.status_code == 422 and words in answer.json()["error"], path


def test_uploads_are_decoded_one_by_one(client, monkeypatch) -> None:
    """Two hundred pictures of one colour are gigabytes; none is kept while the next is read."""
    import weakref

    from zeroconv.serving.v1 import train

    alive: list[weakref.ref] = []
    most = 0
    real = train.read_rgb

    def watched(*args):
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))
        image = real(*args)
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr(train, "read_rgb", watched)
    items = [{"picture": as_base64(Image.new("RGB", (8, 8))), "caption": ""}] * 5
    answer = client.post("/api/v1/datasets", json={"name": "flat", "items": items})
    assert answer.status_code == 201 and answer.json()["pictures"] == 5
    assert most <= 1


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_pictures_of_other_formats_reach_no_decoder(client, monkeypatch, kind) -> None:
    from zeroconv.serving import pixels

    monkeypatch.setattr(pixels, "load", lambda *a: pytest.fail("decoded"))
    body = {"condition": "canny", "picture": as_base64(picture(), kind)}
    answer = client.post("/api/v1/annotate", json=body)
    assert answer.status_code == 422 and "no PNG, JPEG or WebP" in answer.json()["error"]
