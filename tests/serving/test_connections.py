"""Connections that bring no request, or bring it slowly; and clients that only listen."""

from __future__ import annotations

import asyncio
import socket
from unittest.mock import Mock

import pytest
import uvicorn

from tests.helpers.tiny_server import running, settings_for
from zeroconv.serving import connections
from zeroconv.serving.connections import Protocol
from zeroconv.serving.settings import Limits

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope, receive, send) -> None:
    if scope["type"] == "http":
        await asyncio.sleep(0.2)  # an answer may take longer than a head
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def talk(port: int, parts: list[bytes], pause: float) -> tuple[bytes, float]:
    """What comes back for these bytes with pauses between, and after how long the server closed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause)
    try:
        answer = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        answer = b""
    writer.close()
    return answer, loop.time() - began


@pytest.mark.parametrize(
    ("parts", "answers"),
    [
        ([], 0),
        ([b"GET / HT"], 0),
        ([REQUEST[i : i + 1] for i in range(len(REQUEST))], 0),
        ([REQUEST], 1),
        ([REQUEST, b"GET"], 1),
    ],
    ids=["silent", "begun", "a byte now and then", "whole", "a second one begun"],
)
def test_connections_without_a_request_are_closed(monkeypatch, parts, answers) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]

        async def main() -> tuple[bytes, float]:
            config = uvicorn.Config(
                app,
                http=Protocol,
                lifespan="off",
                log_level="critical",
                timeout_keep_alive=0.3,  # type: ignore[arg-type]
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                return await talk(port, parts, 0.01)
            finally:
                server.should_exit = True
                await serving

        answer, seconds = asyncio.run(main())
    assert answer.count(b"204") == answers
    assert seconds < 4


def test_streams_of_events_are_bounded(server_models, tmp_path) -> None:
    settings = settings_for(server_models, tmp_path / "data", limits=Limits(streams=2))
    with running(settings) as client:
        listeners = client.app.state.studio.jobs.listeners
        listeners._all |= {Mock(), Mock()}
        for path in ("events", "jobs/x/events"):
            answer = client.get(f"/api/v1/{path}")
            assert answer.status_code == (429 if path == "events" else 404)
        assert client.get("/api/v1/info").status_code == 200
