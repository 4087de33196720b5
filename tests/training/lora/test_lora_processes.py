"""A LoRA trained by two processes (gloo), which share gradients or hold a part each, is the LoRA of
one process that takes the same examples and noise. So is one that is distilled by its average.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_distributed import finish, launch
from zeroconv.checkpoints.lora import FILE
from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.lora import adapter, train_lora
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.settings import check_recipe

pytestmark = pytest.mark.slow

# Two runs, in both ways, and each once more from its second step on. Every process writes what it
# holds of the weights that train, in bytes.
CODE = """
import json, os, shutil, sys
from pathlib import Path
import torch
from accelerate import PartialState
torch.set_num_threads(1)
from zeroconv.training import run
from zeroconv.training.lora.trainer import LoraTrainer
rank, root, held, save = os.environ["RANK"], Path(sys.argv[1]).parent, {}, LoraTrainer.save

def noted(self):
    save(self)
    held[self.folder.name] = sum(p.numel() * p.element_size() for p in self.parameters)

LoraTrainer.save = noted
for name, sharding in (("ddp", "none"), ("fsdp", "fsdp")):
    for out in (root / name, root / f"{name}-again"):
        if out.name.endswith("again") and rank == "0":
            (out / "checkpoints").mkdir(parents=True)
            shutil.copy(root / name / "recipe.json", out)
            for path in (root / name / "checkpoints").glob("step-00000002-*"):
                shutil.copy(path, out / "checkpoints")
        if out.name.endswith("again"):
            PartialState().wait_for_everyone()
        changes = [f"out={out}", f"training.sharding={sharding}"]
        run.train(sys.argv[1], overrides=changes, say=lambda line: None)
Path(sys.argv[2] + rank).write_text(json.dumps(held))
"""


KINDS: dict[str, dict[str, Any]] = {
    "denoising": {},
    "lcm": {"kind": "lcm", "lcm": {"target": "average"}},
}


def recipe_of(
    base: Path, pictures: Path, folder: Path, name: str, kind: str, **training: Any
) -> LoraRecipe:
    values = {
        "out": str(folder / name),
        "base": str(base),
        "device": "cpu",
        "lora": {"rank": 3, **KINDS[kind]},  # rows that two processes cannot halve
        "data": {
            "train": str(pictures),
            "size": 64,
            "cache": str(folder / "cache"),
            "validation_count": 4,
        },
        "training": {
            "steps": 4,
            "batch_size": 1,
            "learning_rate": 1e-3,
            "prompt_dropping": 0.0,
            "validate_every": 2,
            "checkpoint_every": 2,
            "keep": 9,
            "sample_count": 1,
            "sample_steps": 1,
            "ema_decay": 0.5,
            "export": "float32",
            "threads": 1,
            **training,
        },
    }
    return check_recipe(LoraRecipe, values, "test")


def matrices(folder: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(folder / "lora" / FILE)


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """How far two LoRAs are apart, relative to the size of the first."""
    assert a.keys() == b.keys()
    squares = sum(float((a[name] - b[name]).square().sum()) for name in a)
    return (squares / sum(float(value.square().sum()) for value in a.values())) ** 0.5


@pytest.fixture(scope="module", params=KINDS)
def folder(
    request: Any, base: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Runs of one process, of two that hold everything, and of two that hold a part each."""
    folder, kind = tmp_path_factory.mktemp("runs"), request.param
    one = recipe_of(base, pictures, folder, "one", kind, accumulation=2)

    # a process's micro-batches draw what two processes draw for one each
    threads, stream = torch.get_num_threads(), adapter.stream

    def drawn(device: Any, seed: int, kind: int, step: int, number: int) -> torch.Generator:
        return stream(device, seed, kind, step, 0, *((number,) if number else ()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "stream", drawn)
        train_lora(one, say=lambda line: None)
    torch.set_num_threads(threads)
    finish(launch(recipe_of(base, pictures, folder, "two", kind), folder, "held", CODE), 900)
    return folder


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_lora_of_two_processes_is_that_of_one(folder: Path, name: str) -> None:
    assert apart(matrices(folder / "one"), matrices(folder / name)) < 1e-3
    summaries = [json.loads((folder / n / "summary.json").read_text()) for n in ("one", name)]
    assert [s["samples"] for s in summaries] == [8, 8]
    for a, b in zip(*(s["validation"] for s in summaries), strict=True):
        assert a["step"] == b["step"] and a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    assert (folder / name / "samples" / "step-00000004.png").is_file()


def test_lora_is_held_in_parts_under_fsdp(folder: Path) -> None:
    first, second = (json.loads((folder / f"held-{rank}").read_text()) for rank in range(2))
    assert first["ddp"] == second["ddp"] == first["fsdp"] + second["fsdp"]
    assert max(first["fsdp"], second["fsdp"]) < 0.7 * first["ddp"]


def test_lora_checkpoint_looks_the_same_whoever_wrote_it(folder: Path) -> None:
    one, parts = (
        torch.load(checkpoints(folder / name / "checkpoints")[0], weights_only=True)
        for name in ("one", "fsdp")
    )
    assert one.keys() == parts.keys()
    for a, b in zip(one["parameters"], parts["parameters"], strict=True):
        assert a.shape == b.shape


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_lora_of_two_processes_goes_on_bit_for_bit(folder: Path, name: str) -> None:
    assert apart(matrices(folder / name), matrices(folder / f"{name}-again")) == 0.0
