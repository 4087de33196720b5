"""Weights & Biases and Trackio themselves, without a network: what a killed run told them, read
from their files.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from zeroconv.training.recipes.recipe import Recipe

pytestmark = pytest.mark.trackers
Make = Callable[..., Recipe]
OPTIONS = {
    "steps": 7,
    "checkpoint_every": 3,
    "log_every": 1,
    "validate_every": 2,
    "sample_count": 2,
    "sample_steps": 1,
}

# a training that kills itself before it takes step sys.argv[2]
CODE = """
import os, signal, sys
from zeroconv.training import train_command
from zeroconv.training.trainer import Trainer
step = Trainer._train_step
def dies(self, micro):
    if self.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, micro)
Trainer._train_step = dies
train_command(sys.argv[1])
"""


class Silence:
    """A proxy that takes connections and never answers, as a firewall that drops packets; it counts
    them.
    """

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.calls: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                self.calls.append(self.socket.accept()[0])
            except OSError:
                return

    def environment(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        return {name: address for lower in names for name in (lower, lower.upper())} | {
            "NO_PROXY": "",
            "no_proxy": "",
        }


@pytest.fixture
def silence() -> Iterator[Silence]:
    proxy = Silence()
    yield proxy
    proxy.socket.close()


def run(
    recipe: Recipe, folder: Path, environment: dict[str, str], dies_at: int = -1
) -> subprocess.CompletedProcess:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    words = [sys.executable, "-W", "ignore", "-c", CODE, str(path), str(dies_at)]
    return subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900
    )


def log_of(recipe: Recipe) -> dict[str, dict[int, float]]:
    lines = [json.loads(line) for line in (Path(recipe.out) / "log.jsonl").read_text().splitlines()]
    return {
        "train/loss": {line["step"]: line["loss"] for line in lines if "loss" in line},
        "validation/hint_gain": {
            line["step"]: line["validation"]["gain"] for line in lines if "validation" in line
        },
    }


def wandb_records(path: Path) -> Iterator[Any]:
    """Of a .wandb file: LevelDB's log format after a header of 7 bytes, a protobuf message a
    record.
    """
    from wandb.proto import wandb_internal_pb2

    data, offset, parts = path.read_bytes(), 7, b""
    while offset + 7 <= len(data):
        if 32768 - offset % 32768 < 7:
            offset += 32768 - offset % 32768
            continue
        length, kind = struct.unpack("<HB", data[offset + 4 : offset + 7])
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_history(records: list[Any]) -> list[dict[str, Any]]:
    rows = (record.history for record in records if record.HasField("history"))
    return [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in row.item}
        for row in rows
    ]


def test_wandb_offline_holds_what_a_killed_run_logged(
    recipe: Make, tmp_path: Path, silence: Silence
) -> None:
    pytest.importorskip("wandb")
    settings = recipe(report_to=["wandb"], project="mine", **OPTIONS)
    environment = {**silence.environment(), "WANDB_MODE": "offline"}
    assert run(settings, tmp_path, environment, dies_at=5).returncode == -signal.SIGKILL
    ended = run(settings, tmp_path, environment)
    assert ended.returncode == 0, ended.stderr
    assert not silence.calls
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    records = [list(wandb_records(file)) for file in files]
    runs = [record.run for part in records for record in part if record.HasField("run")]
    assert {(r.run_id, r.display_name, r.project) for r in runs} == {
        (json.loads((tmp_path / "run" / "tracking.json").read_text())["id"], "run", "mine")
    }
    rows = wandb_history(records[1])  # whole: what the kill left in the first file is not certain
    for name, written in log_of(settings).items():
        recorded = [(row["_step"], row[name]) for row in rows if name in row]
        assert dict(recorded) == pytest.approx(written, rel=1e-5, abs=1e-9) and len(
            recorded
        ) == len(written), name
    (names,) = (row["samples/filenames"] for row in rows if "samples/filenames" in row)
    (picture,) = (tmp_path / "run" / "wandb").rglob(names[0].split("/")[-1])
    same_picture(picture, tmp_path / "run" / "samples" / "step-00000007.png")


def test_trackio_holds_what_a_killed_run_logged(
    recipe: Make, tmp_path: Path, silence: Silence
) -> None:
    pytest.importorskip("trackio")
    settings = recipe(report_to=["trackio"], project="mine", **OPTIONS)
    store = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HOME": str(tmp_path / "hf")}
    token = {"HF_TOKEN": "hf_" + 34 * "a"}  # Trackio would ask the hub whose it is
    environment = {**silence.environment(), **store, **token}
    assert run(settings, tmp_path, environment, dies_at=5).returncode == -signal.SIGKILL
    ended = run(settings, tmp_path, environment)
    assert ended.returncode == 0, ended.stderr
    assert not silence.calls
    with sqlite3.connect(tmp_path / "trackio" / "mine.db") as store:
        lines = store.execute(
            "SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id"
        ).fetchall()
        ((config,),) = store.execute("SELECT config FROM configs").fetchall()
    name = json.loads((tmp_path / "run" / "tracking.json").read_text())["id"]
    assert len({line[0] for line in lines}) == 1 and {line[1] for line in lines} == {
        f"run-{name[:6]}"
    }
    assert json.loads(config)["training.learning_rate"] == 0.001
    rows = [(step, json.loads(metrics)) for _, _, step, metrics in lines]
    for name, written in log_of(settings).items():
        recorded = [(step, row[name]) for step, row in rows if name in row]
        assert dict(recorded) == pytest.approx(written, rel=1e-5, abs=1e-9), name
        assert len(recorded) <= len(written) + 1  # the step of the kill, perhaps twice
    (sheet,) = (row["samples"] for _, row in rows if "samples" in row)
    same_picture(
        tmp_path / "trackio" / "media" / sheet["file_path"],
        tmp_path / "run" / "samples" / "step-00000007.png",
    )


def same_picture(recorded: Path, made: Path) -> None:
    with Image.open(recorded) as a, Image.open(made) as b:
        assert a.convert("RGB").tobytes() == b.convert("RGB").tobytes()
