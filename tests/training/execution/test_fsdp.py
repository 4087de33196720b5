"""Two processes (gloo) that cut everything up (FSDP2): the same weights as with whole ones, exact
after a kill.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.conftest import recipes
from zeroconv.control import ControlNet
from zeroconv.training.checkpoint import checkpoints, load_checkpoint, step_of
from zeroconv.training.recipes.recipe import Recipe

pytestmark = pytest.mark.slow

# Each process goes through the runs of a list, one after the other, and writes of each what it
# trained on, the noise it drew, and how many bytes it holds of what. `broken`: steps at which the
# second process's loss is no number, once. `stop`: a step at which it alone gets SIGTERM.
# `converged`: from which step on hints count as followed.
CODE = """
import hashlib, json, os, signal, sys
from contextlib import suppress
from pathlib import Path
import torch
from zeroconv.errors import Interrupted
torch.set_num_threads(1)
from zeroconv.training import objective, run, trainer
from zeroconv.training.measuring.convergence import Convergence
from zeroconv.training.execution.dtensor import joined, local_part, part_of, put_together
from zeroconv.training.recipes.recipe import load_recipe
rank, step = os.environ["RANK"], trainer.Trainer._train_step
errors = objective.ControlledLoss.errors

def train_step(self, micro):
    global mine
    mine = self
    taken.append([self.step, [i for batch in micro for i in batch.indices.tolist()]])
    if rank == "1" and self.step == now.get("stop"):
        signal.raise_signal(signal.SIGTERM)
    return step(self, micro)

def noisy(self, z, noise, *rest, **more):
    found = errors(self, z, noise, *rest, **more)
    if torch.is_grad_enabled():
        noises.append(hashlib.sha256(noise.numpy().tobytes()).hexdigest())
        if rank == "1" and mine.step in now.get("broken", []):
            now["broken"].remove(mine.step)
            found = found * float("nan")
    return found

def detect(history):
    last = history[-1]
    found = last.step >= now.get("converged", 99)
    return Convergence(last.step, last.step, 1.0, 0.99) if found else None

def held(tensors):
    return sum(t.untyped_storage().nbytes() for t in map(local_part, tensors))

trainer.Trainer._train_step, trainer.detect = train_step, detect
objective.ControlledLoss.errors = noisy
for now in json.loads(Path(sys.argv[1]).read_text()):
    os.environ.update(now.get("environment", {}))
    taken, noises, said, mine = [], [], [], None
    with suppress(Interrupted):
        run.train(load_recipe(now["recipe"]), say=said.append)
    moments = [v for s in mine.optimizer.state.values() for k, v in s.items() if k != "step"]
    frozen = [p for p in mine.backbone.unet.parameters() if not p.requires_grad]
    modules = [module for module in (mine.control, mine.decoder) if module is not None]
    weights = [p for module in modules for p in module.parameters()]
    kinds = {"weights": weights, "moments": moments, "average": mine.ema.average, "frozen": frozen}
    Path(f"{now['recipe']}-{rank}").write_text(json.dumps({
        "taken": taken, "noises": noises, "said": said,
        "step": mine.step, "rollbacks": mine.rollbacks,
        "converged": mine.converged,
        "held": {name: held(tensors) for name, tensors in kinds.items()},
    }))

# tensors of fewer rows than processes, and of a number that does not divide
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
rows = [torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) for n in (1, 2, 3, 5)]
cut = [distribute_tensor(t, init_device_mesh("cpu", (2,)), [Shard(0)]) for t in rows]
parts = [part_of(t, like) for t, like in zip(rows, cut)]
assert all(torch.equal(part, like.to_local()) for part, like in zip(parts, cut))
assert all(part.untyped_storage().nbytes() == part.nbytes for part in parts)
back = put_together({"all": [joined(part, like) for part, like in zip(parts, cut)]})["all"]
assert back == [None] * 4 if rank == "1" else all(map(torch.equal, back, rows))
"""
SETTINGS: dict[str, Any] = {
    "steps": 6,
    "checkpoint_every": 2,
    "validate_every": 3,
    "ema_decay": 0.9,
    "keep": 9,
    "threads": 1,
    "data.condition": "canny",
    "data.validation_count": 4,
    "control.unlock_decoder": True,
    "sharding": "fsdp",
}
LAUNCHER = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "false",
}


def launch(folder: Path, runs: list[tuple[Recipe, dict[str, Any]]]) -> list[subprocess.Popen]:
    """Two processes that go through `runs`, each a recipe and what happens in it."""
    todo = []
    for recipe, more in runs:
        path = folder / f"{Path(recipe.out).name}-{recipe.training.sharding}.yaml"
        path.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
        todo.append({"recipe": str(path), **more})
    (folder / "runs.json").write_text(json.dumps(todo))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "ACCELERATE_USE_CPU": "true",
        }
    words = [sys.executable, "-W", "ignore", "-c", CODE, str(folder / "runs.json")]
    places = [
        {"RANK": r, "LOCAL_RANK": r, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"} for r in "01"
    ]
    return [
        subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1", **where, **p})
        for p in places
    ]


@pytest.fixture(scope="module")
def folder(base: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all runs, made by two starts of two processes."""
    folder = tmp_path_factory.mktemp("runs")
    make = recipes(base, pictures, folder)

    def recipe(name: str, **changes: Any) -> Recipe:
        return make(out=str(folder / name), **{**SETTINGS, **changes})

    processes = launch(folder, [(recipe("killed", steps=50), {})])
    end = time.monotonic() + 400
    while not checkpoints(folder / "killed" / "checkpoints") and time.monotonic() < end:
        time.sleep(0.02)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    pictures_too = {"sample_count": 1, "sample_steps": 1, "evaluate_every": 3, "evaluate_count": 2}
    by_launcher = {
        "sharding": "auto",
        "control.unlock_decoder": False,
        "accumulation": 2,
        "steps": 30,
    }
    eventful = {**by_launcher, "validate_every": 1, "on_convergence": "stop_after=1"}
    runs = [
        (recipe("killed"), {}),
        (recipe("cut", **pictures_too), {}),
        (recipe("whole", sharding="none"), {}),
        (recipe("changing", steps=4), {}),
        (recipe("changing", sharding="none"), {}),
        (
            recipe("eventful", **eventful),
            {"environment": LAUNCHER, "broken": [3, 4, 5, 6, 7], "converged": 8},
        ),
        (recipe("stopped", **{**by_launcher, "validate_every": 0}), {"stop": 3}),
    ]
    processes = launch(folder, runs)
    assert [process.wait(timeout=1800) for process in processes] == [0, 0]
    return folder


def reports(folder: Path, name: str, sharding: str = "fsdp") -> list[dict]:
    return [
        json.loads((folder / f"{name}-{sharding}.yaml-{rank}").read_text()) for rank in range(2)
    ]


def state(folder: Path, name: str, step: int = 6) -> dict[str, Any]:
    checkpoint = load_checkpoint(folder / name / "checkpoints", step=step)
    assert checkpoint is not None
    return checkpoint


def tensors(state: dict[str, Any]) -> list[torch.Tensor]:
    """Weights, averages and moments of a checkpoint."""
    moments = [
        m[name]
        for _, m in sorted(state["optimizer"]["state"].items())
        for name in ("exp_avg", "exp_avg_sq")
    ]
    return [
        *state["control"].values(),
        *(state["decoder"] or {}).values(),
        *state["ema"]["average"],
        *moments,
    ]


def test_fsdp_process_holds_half_and_takes_separate_examples_and_noise(folder: Path) -> None:
    unsplit, *parts = (
        reports(folder, "whole", "none")[0]["held"],
        *(one["held"] for one in reports(folder, "cut")),
    )
    for part in parts:
        for kind in ("weights", "moments", "average"):
            assert part[kind] == pytest.approx(unsplit[kind] / 2, rel=0.01), kind
        # its first convolution and its time embedding are whole
        assert part["frozen"] < 0.52 * unsplit["frozen"]
    first, second = reports(folder, "cut")
    for (_, left), (_, right) in zip(first["taken"], second["taken"], strict=True):
        assert len(left) == len(right) == 2 and not set(left) & set(right)
    assert len({*first["noises"], *second["noises"]}) == 2 * len(first["noises"]) == 12


def assert_alike(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Two runs whose sums are made in another order: means of gradients differ by some millionths
    of the largest.

    AdamW divides by a gradient's own size, so that rounding shows where that is small: where it is
    above 1e-5, a quarter of the weights, all but a thousandth differ by less than a five hundredth
    of a step (1e-3) and none by a tenth, and nowhere does one differ by a whole one of the six
    steps.
    """
    means = [
        [s["optimizer"]["state"][i]["exp_avg"] for i in sorted(s["optimizer"]["state"])]
        for s in (a, b)
    ]
    largest = max(float(mean.abs().max()) for mean in means[0])
    assert all(x.shape == y.shape for x, y in zip(tensors(a), tensors(b), strict=True))
    assert all(
        torch.allclose(x, y, rtol=0, atol=2e-5 * largest) for x, y in zip(*means, strict=True)
    )
    weights = [
        torch.cat([w.flatten() for w in (*s["control"].values(), *s["decoder"].values())])
        for s in (a, b)
    ]
    squares = [
        b["optimizer"]["state"][i]["exp_avg_sq"].flatten() for i in sorted(b["optimizer"]["state"])
    ]
    real = torch.cat(squares).sqrt() > 1e-5
    apart = (weights[0] - weights[1]).abs()
    assert real.float().mean() > 0.2 and apart.max() < 1e-3
    assert (apart[real] < 2e-6).float().mean() > 0.999 and apart[real].max() < 1e-4


def test_fsdp_weights_are_those_of_an_unsharded_run(folder: Path) -> None:
    assert_alike(state(folder, "cut"), state(folder, "whole"))
    before, after = (tensors(state(folder, "cut", step)) for step in (2, 6))
    assert max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True)) > 1e-3


def test_a_killed_run_goes_on_exactly(folder: Path) -> None:
    straight, killed = state(folder, "cut"), state(folder, "killed")
    assert all(torch.equal(a, b) for a, b in zip(tensors(straight), tensors(killed), strict=True))
    assert straight["history"] == killed["history"] and straight["micro"] == killed["micro"] == 6
    went_on = reports(folder, "killed")[0]["taken"]
    assert 0 < len(went_on) < 6 and reports(folder, "cut")[0]["taken"][-len(went_on) :] == went_on


def test_fsdp_run_may_go_on_unsharded(folder: Path) -> None:
    assert [step for step, _ in reports(folder, "changing", "none")[0]["taken"]] == [4, 5]
    assert_alike(state(folder, "changing"), state(folder, "whole"))


def test_fsdp_saves_the_complete_average(folder: Path) -> None:
    saved, control = state(folder, "cut"), ControlNet.load(folder / "cut" / "control")
    names = [name for name, _ in control.named_parameters()]
    assert list(saved["control"]) == list(control.state_dict())
    averages = dict(zip(names, saved["ema"]["average"], strict=False))
    assert all(torch.equal(value, averages[name]) for name, value in control.state_dict().items())
    assert any(not torch.equal(value, saved["control"][name]) for name, value in averages.items())
    assert (folder / "cut" / "base" / "model_index.json").is_file()


def test_all_take_part_in_pictures_and_rounds_and_one_writes(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "evaluation" in line] == [0, 3, 6]
    assert [line["step"] for line in lines if "validation" in line] == [0, 3, 6]
    names = [
        "evaluation-00000000.png",
        "evaluation-00000003.png",
        "evaluation-00000006.png",
        "step-00000006.png",
    ]
    assert sorted(path.name for path in (folder / "cut" / "samples").iterdir()) == names
    assert reports(folder, "cut")[1]["said"] == []


def test_a_launcher_s_run_returns_to_its_checkpoint_and_ends_after_convergence(
    folder: Path,
) -> None:
    for one in reports(folder, "eventful", "auto"):
        assert one["rollbacks"] == 1 and one["step"] == 9 and one["converged"]["seen"] == 8
        assert (
            one["held"]["weights"] < 0.55 * reports(folder, "whole", "none")[0]["held"]["weights"]
        )
    events = [
        json.loads(line).get("event")
        for line in (folder / "eventful" / "log.jsonl").read_text().splitlines()
    ]
    assert events.count("rolled back") == 1 and events.count("converged") == 1
    history = [line["true"] for line in state(folder, "eventful", 9)["history"]]
    assert history[-1] < history[0]


def test_averages_that_a_validation_gathered_are_not_trained_on(folder: Path) -> None:
    """The launcher of both runs lets weights stay gathered behind a forward pass; one of them
    validates every step.
    """
    with_, without = state(folder, "eventful", 2), state(folder, "stopped", 2)
    assert len(with_["history"]) == 3 and not without["history"]
    assert all(torch.equal(a, b) for a, b in zip(tensors(with_), tensors(without), strict=True))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(with_["ema"]["average"], with_["control"].values(), strict=True)
    )


def test_a_signal_to_one_process_stops_both_at_one_step(folder: Path) -> None:
    assert json.loads((folder / "stopped" / "summary.json").read_text())["status"] == "interrupted"
    assert [one["step"] for one in reports(folder, "stopped", "auto")] == [4, 4]
    assert step_of(checkpoints(folder / "stopped" / "checkpoints")[0]) == 4
