"""The OpenAPI schema, and requests made from it."""

from __future__ import annotations

import warnings

import pytest

from tests.helpers.api_fuzz import SMALL, fuzz
from tests.helpers.tiny_server import running, settings_for


def test_api_schema_describes_every_route(client) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    assert schema == client.app.openapi()
    paths = schema["paths"]
    for path in ("generate", "annotate", "evaluate", "train", "jobs", "events", "history"):
        assert f"/api/v1/{path}" in paths
    body = schema["components"]["schemas"]["GenerateBody"]
    assert body["additionalProperties"] is False and body["properties"]["steps"]["maximum"] == 1000
    for path, methods in paths.items():
        if path.startswith("/api/v1"):
            for operation in methods.values():
                assert {"403", "422"} <= set(operation["responses"]), path


def test_api_lists_what_may_be_named(client) -> None:
    models = client.get("/api/v1/models").json()
    assert models["bases"][0]["name"] == "base" and models["bases"][0]["resolution"] == 64
    controls = {control["name"]: control for control in models["controls"]}
    assert (
        controls["canny"]["base"] == "playroom" and controls["tiny_depth"]["condition"] == "depth"
    )
    assert "playroom-shared" not in controls
    conditions = {one["name"]: one for one in models["conditions"]}
    assert conditions["canny"]["needs"] == "picture"
    assert conditions["canny"]["options"]["low"] == {
        "default": 100, "min": 0, "max": 10_000, "integer": True,
    }  # fmt: skip
    assert conditions["depth"]["needs"] == "drawing"
    assert [c["name"] for c in conditions["segmentation"]["palette"]][:2] == ["wall", "floor"]
    assert {"name": "dpm++2m", "label": "DPM++ 2M"} in models["samplers"]


def test_api_info_needs_nothing(client) -> None:
    info = client.get("/api/v1/info").json()
    assert info["base"] == "base" and info["limits"]["steps"] == 150


@pytest.mark.slow
def test_api_answers_requests_of_its_schema_without_a_fault(server_models, tmp_path) -> None:
    warnings.simplefilter("ignore")
    with running(settings_for(server_models, tmp_path / "data", limits=SMALL)) as client:
        report = fuzz(client, client.app.openapi(), 300)
    assert report.wrong == {}
    assert report.requests > 100
