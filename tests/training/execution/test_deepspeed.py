"""DeepSpeed's ZeRO on two gloo processes: the run that DistributedDataParallel makes, and exact
after a kill.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.test_distributed import CODE, finish, kill, launch, reports
from zeroconv.errors import UserError
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.run import train

Make = Callable[..., Recipe]
SETTINGS = {
    "steps": 8,
    "checkpoint_every": 4,
    "validate_every": 4,
    "threads": 1,
    "data.condition": "canny",
}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_USE_CPU": "false", "DS_ACCELERATOR": "cpu"}


def state_of(folder: Path) -> dict:
    return torch.load(checkpoints(folder / "checkpoints")[0], weights_only=True)


def near(a: dict, b: dict, tolerance: float) -> None:
    """Two states: weights, averages and each of the moments, as one vector. Adam makes a whole step
    of a gradient that is nothing but rounding, so single numbers may differ.
    """
    assert (
        a["micro"] == b["micro"]
        and a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    )
    of = {"weights": [(a["control"][name], b["control"][name]) for name in a["control"]]}
    of["averages"] = list(zip(a["ema"]["average"], b["ema"]["average"], strict=True))
    for name in ("step", "exp_avg", "exp_avg_sq"):
        of[name] = [
            (inner[name], b["optimizer"]["state"][i][name])
            for i, inner in a["optimizer"]["state"].items()
        ]
    for name, pairs in of.items():
        assert all(one.shape == other.shape for one, other in pairs)
        one, other = (
            torch.cat([tensor.flatten() for tensor in side]) for side in zip(*pairs, strict=True)
        )
        assert (one - other).norm() <= tolerance * other.norm(), name


@pytest.mark.deepspeed
@pytest.mark.parametrize("stage", ["1", "2"])
def test_zero_makes_the_run_that_unsharded_processes_make(
    recipe: Make, tmp_path: Path, stage: str
) -> None:
    more = {**SETTINGS, "accumulation": 2, "control.unlock_decoder": stage == "2"}
    finish(launch(recipe(out=str(tmp_path / "ddp"), **more), tmp_path, "ddp"))
    zero = recipe(out=str(tmp_path / "zero"), **more)
    finish(launch(zero, tmp_path, "zero", **ZERO, ACCELERATE_DEEPSPEED_ZERO_STAGE=stage))
    first, second = reports(tmp_path, "zero")
    assert (
        first["weights"] == second["weights"]
        and first["taken"] == reports(tmp_path, "ddp")[0]["taken"]
    )
    near(state_of(tmp_path / "zero"), state_of(tmp_path / "ddp"), 0.02)


@pytest.mark.deepspeed
def test_a_run_of_zero_survives_a_kill_and_goes_on_without_it(recipe: Make, tmp_path: Path) -> None:
    finish(launch(recipe(out=str(tmp_path / "straight"), **SETTINGS), tmp_path, "straight", **ZERO))
    killed = recipe(out=str(tmp_path / "killed"), **SETTINGS)
    processes = launch(killed, tmp_path, "killed", **ZERO)
    kill(processes, tmp_path / "killed")
    shutil.copytree(tmp_path / "killed", tmp_path / "other")
    finish(launch(killed, tmp_path, "killed", **ZERO))
    near(state_of(tmp_path / "killed"), state_of(tmp_path / "straight"), 0.0)
    finish(launch(recipe(out=str(tmp_path / "other"), **SETTINGS), tmp_path, "other"))
    near(state_of(tmp_path / "other"), state_of(tmp_path / "straight"), 1e-3)


@pytest.mark.deepspeed
def test_a_gradient_that_is_no_number_leaves_the_weights(recipe: Make, tmp_path: Path) -> None:
    """In one process and one step of two: both leave it out, and the run counts it."""
    spoil = CODE.replace(
        "run.train(",
        """original = trainer.ControlledLoss.errors
def errors(self, z, *words, **options):
    spoilt = z.requires_grad is False and torch.is_grad_enabled() and mine.step == 1 and rank == "1"
    return original(self, z, *words, **options) * (float("nan") if spoilt else 1)
trainer.ControlledLoss.errors = errors
run.train(""",
    )
    more = {**SETTINGS, "steps": 3, "validate_every": 0}
    finish(
        launch(recipe(out=str(tmp_path / "spoilt"), **more), tmp_path, "spoilt", code=spoil, **ZERO)
    )
    first, second = reports(tmp_path, "spoilt")
    assert first["weights"] == second["weights"]
    state = state_of(tmp_path / "spoilt")
    assert all(value.isfinite().all() for value in state["control"].values())
    assert {float(inner["step"]) for inner in state["optimizer"]["state"].values()} == {2.0}
    lines = [
        json.loads(line) for line in (tmp_path / "spoilt" / "log.jsonl").read_text().splitlines()
    ]
    assert sum(line.get("event") == "skipped" for line in lines) == 1


@pytest.mark.parametrize(
    ("wishes", "changes", "sentence"),
    [
        (
            {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            {},
            "stage 3, of which 1 and 2 are followed; --use_fsdp",
        ),
        (
            {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"},
            {},
            "stage 0, of which 1 and 2 are followed; --multi_gpu",
        ),
        ({"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, {}, "names a DeepSpeed config"),
        (
            {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            {},
            "drop --offload_optimizer_device",
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "fp16"},
            {},
            "asks for mixed precision fp16 and the recipe for .* fp32",
        ),
        ({}, {"optimizer": "muon"}, "training.optimizer muon does not go with DeepSpeed"),
        ({}, {"precision": "fp16"}, "training.precision fp16 does not go with DeepSpeed"),
        ({}, {"sharding": "fsdp"}, "training.sharding fsdp does not go with DeepSpeed"),
    ],
)
def test_zero_refuses_what_it_does_not_do(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, wishes: dict, changes: dict, sentence: str
) -> None:
    for name, value in {"ACCELERATE_USE_DEEPSPEED": "true", **wishes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        train(recipe(**changes))


def test_deepspeed_that_is_not_there_is_asked_for(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("zeroconv.training.execution.deepspeed.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install deepspeed"):
        train(recipe())
