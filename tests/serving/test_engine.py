"""The engine of the server's start: of every request, and recorded in its pictures."""

from __future__ import annotations

from zeroconv.serving.generation import Generation
from zeroconv.serving.jobs.making import arguments_of
from zeroconv.serving.settings import ServerSettings


def test_engine_of_the_start_is_for_every_request(client) -> None:
    assert client.get("/api/v1/info").json()["engine"] == "torch"
    catalogue, limits = client.app.state.studio.catalogue, ServerSettings().limits
    request = Generation()
    request.check(catalogue, limits, engine="openvino")
    assert request.engine == "openvino"
    assert "engine" not in request.settings()  # of a body, which has no such field

    class Frame:
        size = (64, 64)

    assert arguments_of(request, Frame())["engine"] == "openvino"
