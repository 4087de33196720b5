"""`fast` through the server: the bits of the library, recorded, and the default of the start."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

from tests.helpers.tiny_server import QUICK, as_base64, ended, made, opened, picture
from zeroconv.conditions import annotate
from zeroconv.errors import UserError
from zeroconv.generation.metadata.record import read_info
from zeroconv.serving.generation import Generation
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.worker import joins

WORDS = {"x3": "deep=3,branch=2,difference=2", "off": "off", "deep=2,change=0.5": None}


def by_library(client, **options) -> np.ndarray:
    from zeroconv.generation import Control, generate

    models = client.app.state.studio.models
    net = models.control("tiny_canny", "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (image,) = generate(
            models.base("base"), "a cat", [Control(net, annotate("canny", picture()))],
            steps=4, scheduler="euler", seed=3, height=64, width=64, **options,
        )  # fmt: skip
    return np.asarray(image)


def asked(client, **more) -> tuple[np.ndarray, dict]:
    hint = as_base64(annotate("canny", picture()))
    job = made(client, steps=4, controls=[{"control": "tiny_canny", "hint": hint}], **more)
    content = client.get(job["results"][0]["picture"]).content
    return np.asarray(opened(content)), read_info(io.BytesIO(content))


@pytest.mark.parametrize("fast", ["x3", "off"])
def test_fast_pictures_are_those_of_the_library(client, fast) -> None:
    pixels, about = asked(client, fast=fast)
    np.testing.assert_array_equal(pixels, by_library(client, fast=fast))
    assert about["fast"] == WORDS[fast]


def test_fast_is_used_again_from_the_history(client) -> None:
    job = made(client, steps=4, fast="x2")
    entry = client.get(f"/api/v1/history/{job['results'][0]['id']}").json()
    assert entry["settings"]["fast"] == "deep=2,branch=2,difference=2"
    content = client.get(job["results"][0]["picture"]).content
    read = client.post("/api/v1/settings", json={"picture": as_base64(opened(content))})
    assert read.status_code == 422  # drawn anew it carries nothing
    import base64

    body = {"picture": base64.b64encode(content).decode()}
    read = client.post("/api/v1/settings", json=body).json()
    assert read["settings"]["fast"] == entry["settings"]["fast"] and read["notes"] == []
    again = ended(client, client.post("/api/v1/generate", json=entry["settings"]).json())
    one, two = (client.get(j["results"][0]["picture"]).content for j in (job, again))
    np.testing.assert_array_equal(np.asarray(opened(one)), np.asarray(opened(two)))


@pytest.mark.parametrize("path", ["generate", "evaluate"])
def test_fast_that_there_is_not_is_refused(client, path) -> None:
    body = QUICK if path == "generate" else {"control": "tiny_canny", "data": "playroom"}
    answer = client.post(f"/api/v1/{path}", json={**body, "fast": "turbo"})
    assert answer.status_code == 422 and "it is off, x2, x3" in answer.json()["error"]


def test_fast_of_the_start_is_for_requests_that_name_none(client) -> None:
    names, limits = client.app.state.studio.catalogue, client.app.state.studio.settings.limits
    for given, words in ((None, WORDS["x3"]), ("off", "off"), ("deep=2", "deep=2")):
        request = Generation(fast=given)
        request.check(names, limits, "x3")
        assert request.fast == words
    assert client.get("/api/v1/info").json()["fast"] == "off"
    presets = {one["name"]: one["settings"] for one in client.get("/api/v1/models").json()["fast"]}
    assert presets["x3"] == WORDS["x3"]
    with pytest.raises(UserError, match="it is off"):
        Generation(fast="turbo").check(names, limits)


@pytest.mark.parametrize(
    ("options", "together"),
    [({"fast": "deep=2"}, True), ({"fast": "change=0.5"}, False), ({"noise": "batch"}, False)],
)
def test_fast_that_depends_on_the_batch_is_computed_alone(options, together) -> None:
    one, two = (Job("generate", Generation(seed=seed, **options)) for seed in (1, 2))
    assert joins(one, two, 1) is together
