"""The server as a process: killed in the middle, stopped, refused; clients that go away."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.helpers.server_process import Server, options_of
from tests.helpers.tiny_server import QUICK, as_base64, picture, settings_for
from zeroconv.serving.app import create_app
from zeroconv.serving.running import open_socket

pytestmark = pytest.mark.slow


def test_a_killed_server_keeps_what_is_done_and_tells_what_is_lost(server_models, tmp_path) -> None:
    server = Server(*options_of(server_models, tmp_path / "data"))
    try:
        done = server.ended(server.call("/api/v1/generate", QUICK)[1])
        assert done["state"] == "done"
        long = {**QUICK, "steps": 150, "width": 512, "height": 512}
        jobs = [server.call("/api/v1/generate", {**long, "seed": i})[1] for i in range(40)]
        while server.call(f"/api/v1/jobs/{jobs[0]['id']}")[1]["state"] == "queued":
            time.sleep(0.01)
    finally:
        server.kill()
    server = Server(*options_of(server_models, tmp_path / "data"))
    try:
        assert any("not finished" in line for line in server.lines)
        listed = {job["id"]: job for job in server.call("/api/v1/jobs")[1]["jobs"]}
        assert listed[done["id"]]["results"] == done["results"]
        assert server.call(done["results"][0]["picture"])[0] == 200
        states = [listed[job["id"]]["state"] for job in jobs]
        assert states.count("lost") + states.count("done") == 40 and states.count("lost") >= 30
        again = server.ended(server.call("/api/v1/generate", QUICK)[1])
        assert again["state"] == "done"
        assert server.call("/api/v1/history")[1]["items"]
    finally:
        assert server.stop() == 0
    left = [p for p in (tmp_path / "data").rglob(".zeroconv-t*") if p.name.count("lock") == 0]
    assert left == []


def test_a_killed_servers_training_ends_too(server_models, tmp_path) -> None:
    server = Server(*options_of(server_models, tmp_path / "data"))
    try:
        items = [{"picture": as_base64(picture()), "caption": "a box"} for _ in range(3)]
        data = server.call("/api/v1/datasets", {"name": "boxes", "items": items})[1]["id"]
        body = {"name": "first", "data": data, "control": {"hint_widths": [4, 8, 8, 16]}}
        training = {"steps": 100_000, "batch_size": 1, "validate_every": 0, "sample_count": 0}
        assert server.call("/api/v1/train", {**body, "training": training})[0] == 202
        until = time.monotonic() + 300
        while server.call("/api/v1/train/runs/first")[1]["step"] < 3:
            assert time.monotonic() < until
            time.sleep(0.2)
        lock = tmp_path / "data" / "runs" / "first" / ".zeroconv.lock"
        pid = int(lock.read_text().split()[0])
    finally:
        server.kill()
    until = time.monotonic() + 300
    while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
        assert time.monotonic() < until, "the training goes on"
        time.sleep(0.2)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return "Z"


def test_clients_that_go_away_leave_nothing_behind(server_models, tmp_path) -> None:
    server = Server(*options_of(server_models, tmp_path / "data"))
    try:
        host, port = server.address.removeprefix("http://").split(":")
        for _ in range(30):
            with socket.create_connection((host, int(port))) as one:
                one.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                one.recv(200)
        with socket.create_connection((host, int(port))) as one:
            head = "POST /api/v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
            one.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        job = server.ended(server.call("/api/v1/generate", QUICK)[1])
        assert job["state"] == "done"
    finally:
        assert server.stop() == 0


def test_a_port_in_use_is_a_sentence() -> None:
    with open_socket("127.0.0.1", 0) as taken, pytest.raises(ValueError, match="listened at"):
        open_socket("127.0.0.1", taken.getsockname()[1])


def test_two_servers_do_not_share_a_data_folder(server_models, tmp_path) -> None:
    options = options_of(server_models, tmp_path / "data")
    server = Server(*options, "--no-browser", command="studio")
    try:
        with pytest.raises(ValueError, match="another process"):
            create_app(settings_for(server_models, tmp_path / "data"))
    finally:
        server.stop()
