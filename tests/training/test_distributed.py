"""Two processes (gloo) train one control: no example twice, the same weights on both, exact after a
kill.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from zeroconv.backbones import load_backbone
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.recipes.recipe import Recipe

Make = Callable[..., Recipe]

# every process writes what it trained on and what its weights became
CODE = """
import hashlib, json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from zeroconv.errors import Interrupted
from zeroconv.training import run, trainer
from zeroconv.training.recipes.recipe import load_recipe
recipe, rank = load_recipe(sys.argv[1]), os.environ["RANK"]
taken, step = [], trainer.Trainer._train_step
def train_step(self, micro):
    taken.append([self.step, [i for batch in micro for i in batch.indices.tolist()]])
    return step(self, micro)
trainer.Trainer._train_step = train_step
init = trainer.Trainer.__init__
def remember(self, *a, **k):
    init(self, *a, **k)
    sys.modules["__main__"].mine = self
trainer.Trainer.__init__ = remember
code = 0
try:
    run.train(recipe, say=lambda line: None)
except Interrupted as stop:
    code = stop.code
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in mine.parameters)).hexdigest()
Path(sys.argv[2] + rank).write_text(json.dumps({"taken": taken, "weights": digest}))
sys.exit(code)
"""


def launch(
    recipe: Recipe, folder: Path, name: str, code: str = CODE, **wishes: str
) -> list[subprocess.Popen]:
    """Two processes that run `code`; `wishes`: what a launcher would say in their environment."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        ranks = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
        }
        where = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        words = [sys.executable, "-W", "ignore", "-c", code, str(path), str(folder / f"{name}-")]
        processes.append(subprocess.Popen(words, env={**os.environ, **ranks, **where, **wishes}))
    return processes


def finish(processes: list[subprocess.Popen], seconds: float = 240) -> None:
    assert [process.wait(timeout=seconds) for process in processes] == [0, 0]


def kill(processes: list[subprocess.Popen], run: Path) -> None:
    """As soon as the run has a checkpoint."""
    end = time.monotonic() + 200
    while not checkpoints(run / "checkpoints") and time.monotonic() < end:
        time.sleep(0.02)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (run / "summary.json").exists()


def reports(folder: Path, name: str) -> list[dict]:
    return [json.loads((folder / f"{name}-{rank}").read_text()) for rank in range(2)]


@pytest.fixture
def settings() -> dict:
    return {
        "steps": 12,
        "checkpoint_every": 3,
        "validate_every": 6,
        "threads": 1,
        "data.condition": "canny",
    }


@pytest.mark.slow
def test_two_processes_share_the_gradients_of_an_unlocked_decoder(
    recipe: Make, tmp_path: Path
) -> None:
    """Their examples and noises differ, so only gradients that are shared give both the same
    weights.
    """
    more = {"validate_every": 0, "ema_decay": 0.0, "steps": 3, "control.unlock_decoder": True}
    both = recipe(out=str(tmp_path / "both"), threads=1, **more)
    finish(launch(both, tmp_path, "both"))
    first, second = reports(tmp_path, "both")
    assert first["weights"] == second["weights"]
    after = torch.load(checkpoints(tmp_path / "both" / "checkpoints")[0], weights_only=True)[
        "decoder"
    ]
    before = load_backbone(both.base).unet.state_dict()
    assert not any(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.slow
def test_two_processes_share_the_gradients_of_a_reward(recipe: Make, tmp_path: Path) -> None:
    """How many samples each decodes differs."""
    reward = {"weight": 1.0, "share": 0.4}
    more = {"validate_every": 0, "steps": 3, "log_every": 1, "threads": 1, "reward": reward}
    both = recipe(out=str(tmp_path / "both"), **{"data.condition": "canny"}, **more)
    finish(launch(both, tmp_path, "both"))
    first, second = reports(tmp_path, "both")
    assert first["weights"] == second["weights"]
    lines = map(json.loads, (tmp_path / "both" / "log.jsonl").read_text().splitlines())
    assert all("reward_samples" in line for line in lines if "lr" in line)


@pytest.mark.slow
def test_two_processes_share_the_work_and_survive_a_kill(
    recipe: Make, tmp_path: Path, settings: dict
) -> None:
    straight = recipe(out=str(tmp_path / "straight"), **settings)
    finish(launch(straight, tmp_path, "straight"))
    first, second = reports(tmp_path, "straight")
    assert first["weights"] == second["weights"]
    for (step, ours), (other, theirs) in zip(first["taken"], second["taken"], strict=True):
        assert step == other and len(ours) == len(theirs) == 2 and not set(ours) & set(theirs)
    epoch = [i for taken in (first, second) for _, part in taken["taken"][:12] for i in part]
    assert len(set(epoch)) == len(epoch) == 48  # of 54 examples, none twice in the first pass

    # one process makes pictures, both go on
    rounds = {"evaluate_every": 4, "evaluate_count": 2, "sample_steps": 1}
    killed = recipe(out=str(tmp_path / "killed"), **settings, **rounds)
    processes = launch(killed, tmp_path, "killed")
    kill(processes, tmp_path / "killed")
    finish(launch(killed, tmp_path, "killed"))
    again = reports(tmp_path, "killed")
    assert again[0]["weights"] == again[1]["weights"]
    lines = [
        json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if "evaluation" in line] == [0, 4, 8, 12]
    a, b = (
        torch.load(checkpoints(tmp_path / n / "checkpoints")[0], weights_only=True)
        for n in ("straight", "killed")
    )
    assert a["micro"] == b["micro"] == 12
    for name, value in a["control"].items():
        # gloo adds two numbers, in either order the same: the tolerance is for other builds
        assert torch.allclose(value, b["control"][name], rtol=1e-6, atol=1e-7), name


@pytest.mark.slow
def test_signal_to_one_process_stops_both(recipe: Make, tmp_path: Path, settings: dict) -> None:
    """A launcher's SIGTERM does not reach all in the same step: who saves alone waits for the other
    for ever.
    """
    stopped = recipe(
        out=str(tmp_path / "stopped"), **{**settings, "steps": 500, "checkpoint_every": 2}
    )
    processes = launch(stopped, tmp_path, "stopped")
    end = time.monotonic() + 200
    while not checkpoints(tmp_path / "stopped" / "checkpoints") and time.monotonic() < end:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    try:
        assert [process.wait(timeout=300) for process in processes] == [143, 143]
    finally:
        for process in processes:
            process.kill()
    first, second = reports(tmp_path, "stopped")
    assert first["weights"] == second["weights"]
    assert first["taken"][-1][0] == second["taken"][-1][0]
    summary = json.loads((tmp_path / "stopped" / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["steps"] == first["taken"][-1][0] + 1


@pytest.mark.slow
def test_torchrun_without_a_card_is_one_run(recipe: Make, tmp_path: Path) -> None:
    """The command of docs/scale.md; a recipe without `device` leaves it to the machine."""
    path, made = tmp_path / "recipe.yaml", recipe(steps=3, threads=1, validate_every=3)
    values = {**json.loads(made.model_dump_json()), "device": "auto"}
    path.write_text(yaml.safe_dump(values))
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words += ["-m", "zeroconv.cli", "train", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((made.out / "summary.json").read_text())
    assert summary["samples"] == 3 * 2 * 2  # steps, a process's batch, processes
    steps = [json.loads(line)["step"] for line in (made.out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and len(checkpoints(made.out / "checkpoints")) == 1

    again = subprocess.run(
        [sys.executable, *words, "--set", "training.seed=3"],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert again.returncode != 0
    assert again.stderr.count("zeroconv: ") == 1, again.stderr  # one of them says why
    assert "another recipe (training.seed was 0, is 3)" in again.stderr
