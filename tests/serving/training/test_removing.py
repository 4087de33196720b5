"""Runs and uploaded data sets that a user removes."""

from __future__ import annotations

import pytest

from tests.helpers.tiny_server import as_base64, ended, picture
from tests.serving.training.test_train import SMALL, waiting_run
from zeroconv.serving.training.removing import REMOVED, bytes_below, sweep


def upload(client, name: str = "boxes") -> str:
    items = [{"picture": as_base64(picture(colour=(9 * i, 9, 9))), "caption": "a"} for i in (1, 2)]
    return client.post("/api/v1/datasets", json={"name": name, "items": items}).json()["id"]


@pytest.fixture
def run(client, monkeypatch, server_data):
    """The name and the folder of a run that has ended, with a control."""
    waiting_run(monkeypatch).set()
    data = upload(client, "of-run")
    job = client.post("/api/v1/train", json={"data": data, **SMALL}).json()
    ended(client, job, 20)
    name = job["result"]["run"]
    folder = server_data / "runs" / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "one.safetensors").write_bytes(b"x" * 5000)
    (folder / "control").mkdir()
    (folder / "control" / "config.json").write_text("{}")
    client.app.state.studio._trained(name)
    return name, folder


def names(client) -> list[str]:
    return [run["name"] for run in client.get("/api/v1/train/runs").json()["runs"]]


def controls(client) -> list[str]:
    return [control["name"] for control in client.get("/api/v1/models").json()["controls"]]


def test_removing_a_run_with_all_its_files(client, run, server_data) -> None:
    name, _folder = run
    shown = client.get(f"/api/v1/train/runs/{name}").json()
    assert shown["bytes"] >= 5000 and f"runs/{name}" in controls(client)
    answer = client.delete(f"/api/v1/train/runs/{name}")
    assert answer.status_code == 200 and answer.json() == {"removed": name, "bytes": shown["bytes"]}
    assert name not in names(client) and f"runs/{name}" not in controls(client)
    assert [p.name for p in (server_data / "runs").iterdir() if name in p.name] == []
    assert client.delete(f"/api/v1/train/runs/{name}").status_code == 404
    assert client.get(f"/api/v1/train/runs/{name}").status_code == 404


def test_removing_no_run_that_is_at_work(client, monkeypatch, server_data) -> None:
    release = waiting_run(monkeypatch)
    job = client.post("/api/v1/train", json={"data": upload(client), **SMALL}).json()
    name = job["result"]["run"]
    try:
        answer = client.delete(f"/api/v1/train/runs/{name}")
        assert answer.status_code == 409 and "at work" in answer.json()["error"]
        assert (server_data / "runs" / f"{name}.json").is_file()
    finally:
        release.set()
    ended(client, job, 20)
    assert client.delete(f"/api/v1/train/runs/{name}").status_code == 200


@pytest.mark.parametrize("name", ["..", "../x", "a%2Fb", "%2e%2e", ".removed-1", "no-such"])
def test_removing_nothing_by_other_names(client, name) -> None:
    for path in ("train/runs", "datasets"):
        assert client.delete(f"/api/v1/{path}/{name}").status_code in (404, 405)


def test_removing_a_link_leaves_what_it_leads_to(client, run, tmp_path) -> None:
    import shutil

    name, folder = run
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert client.delete(f"/api/v1/train/runs/{name}").status_code == 200
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "checkpoints" / "one.safetensors").is_file()


def test_removing_goes_on_at_the_next_start(client, server_data) -> None:
    left = server_data / "runs" / f"{REMOVED}ab-x"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "file").write_text("x")
    sweep(client.app.state.studio.settings)
    assert not left.exists()


def test_removing_an_uploaded_set(client, monkeypatch, server_data) -> None:
    id = upload(client, "gone")
    entry = next(e for e in client.get("/api/v1/datasets").json()["datasets"] if e["id"] == id)
    assert entry["pictures"] == 2
    assert entry["bytes"] == bytes_below(server_data / "datasets" / id) > 0
    release = waiting_run(monkeypatch)
    job = client.post("/api/v1/train", json={"data": id, **SMALL}).json()
    assert client.delete(f"/api/v1/datasets/{id}").status_code == 409
    release.set()
    ended(client, job, 20)
    assert client.delete(f"/api/v1/datasets/{id}").status_code == 200
    assert not (server_data / "datasets" / id).exists()
    listed = [entry["name"] for entry in client.get("/api/v1/models").json()["datasets"]]
    assert id not in listed and "playroom" in listed
    # one that the server was started with is not the server's
    assert client.delete("/api/v1/datasets/playroom").status_code == 404


def test_removing_what_was_computed_beforehand(client, monkeypatch, server_data) -> None:
    cache = server_data / "cache"
    (cache / "hints").mkdir(parents=True, exist_ok=True)
    (cache / "hints" / "one").write_bytes(b"x" * 3000)
    assert client.get("/api/v1/train/runs").json()["cache_bytes"] >= 3000
    release = waiting_run(monkeypatch)
    job = client.post("/api/v1/train", json={"data": upload(client), **SMALL}).json()
    assert client.delete("/api/v1/train/cache").status_code == 409
    release.set()
    ended(client, job, 20)
    assert client.delete("/api/v1/train/cache").json()["bytes"] >= 3000
    assert not cache.exists() and client.get("/api/v1/train/runs").json()["cache_bytes"] == 0
    assert client.delete("/api/v1/train/cache").json() == {"bytes": 0}
