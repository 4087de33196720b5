"""Runs that distil a base to few steps: what they leave, resumed bit for bit, and with activations
that are computed again.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroconv.backbones import load_backbone
from zeroconv.checkpoints.lora import FILE
from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.generation import generate
from zeroconv.training.lora import train_lora
from zeroconv.training.lora.trainer import LoraTrainer
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.settings import check_recipe

pytestmark = pytest.mark.slow

TARGETS = ("trained", "average")


@pytest.fixture(scope="module")
def make(base: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("lcm")

    def recipe(out: str, target: str, **training: Any) -> LoraRecipe:
        values = {
            "out": str(folder / out),
            "base": str(base),
            "device": "cpu",
            "lora": {"kind": "lcm", "rank": 4, "lcm": {"target": target, "guidance": [2, 4]}},
            "data": {
                "train": str(pictures),
                "size": 64,
                "cache": str(folder / "cache"),
                "validation_count": 4,
            },
            "training": {
                "steps": 4,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "validate_every": 2,
                "checkpoint_every": 2,
                "sample_count": 2,
                "ema_decay": 0.5,
                "export": "float32",
                **training,
            },
        }
        return check_recipe(LoraRecipe, values, "test")

    return recipe


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(folder / "lora" / FILE)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module", params=TARGETS)
def straight(request: Any, make: Any) -> tuple[str, Path]:
    return request.param, train_lora(make(f"straight-{request.param}", request.param))


def test_a_distillation_that_was_cut_goes_on_bit_for_bit(make, straight, monkeypatch):
    target, folder = straight
    step = LoraTrainer._train_step

    def crash(self, micro):
        if self.step == 3:
            raise RuntimeError("power cut")
        return step(self, micro)

    monkeypatch.setattr(LoraTrainer, "_train_step", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        train_lora(make(f"cut-{target}", target))
    monkeypatch.setattr(LoraTrainer, "_train_step", step)
    lines: list[str] = []
    resumed = train_lora(make(f"cut-{target}", target), say=lines.append)
    assert "going on from step 2 of 4" in lines
    assert equal(weights(resumed), weights(folder))
    both = [json.loads((out / "summary.json").read_text()) for out in (folder, resumed)]
    assert both[0]["validation"] == both[1]["validation"] and len(both[0]["validation"]) == 3


def test_computing_again_changes_nothing_of_a_distillation(make, straight):
    target, folder = straight
    lines: list[str] = []
    again = train_lora(make(f"again-{target}", target, checkpointing="full"), say=lines.append)
    assert sum("parts are computed again" in line for line in lines) == 1
    assert equal(weights(again), weights(folder))


def test_a_distilled_lora_names_its_sampler_and_is_used_with_it(straight):
    _, folder = straight
    assert (folder / "samples" / "step-00000004.png").is_file()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing is guessed, nothing is unusual
        backbone = load_backbone(folder / "lora")
        assert backbone.few_steps.scheduler == "lcm" and backbone.defaults.cfg == 1.0
        options = {"steps": 4, "seed": 1, "output": "tensor"}
        usual = generate(backbone, "picture number 01", **options)[0]
        named = generate(backbone, "picture number 01", scheduler="lcm", cfg=1.0, **options)[0]
    assert torch.equal(usual, named)
