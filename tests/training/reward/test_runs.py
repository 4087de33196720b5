"""Runs with a reward: what they learn, log and keep, and what a recipe may not ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import tiny_backbone
from tests.training.conftest import silent
from tests.training.test_trainer import blocks, equal, weights
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.training.assembling import reward_of
from zeroconv.training.execution.choice import launch
from zeroconv.training.model import prepare_control
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.recipe import parse_recipe
from zeroconv.training.recipes.settings import check_recipe
from zeroconv.training.reporting.report import write_report
from zeroconv.training.trainer import Trainer

Make = Callable[..., Trainer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(out: str = "run", reward: dict[str, Any] | None = None, **settings: Any) -> Trainer:
        values = {"steps": 4, "batch_size": 4, "learning_rate": 3e-3, "validate_every": 0}
        values |= {"sample_count": 0, "reward": {"weight": 1.0, "share": 0.5, **(reward or {})}}
        recipe = parse_recipe(
            {
                "out": str(tmp_path / out),
                "device": "cpu",
                "data": {"train": "x", "condition": "recolor"},
                "training": {**values, **settings},
            }
        )
        torch.manual_seed(0)
        backbone = tiny_backbone("v_prediction")
        data, held = (blocks(backbone, n, n, tmp_path / "cache") for n in (32, 8))
        control = ControlNet.from_backbone(backbone, condition="recolor", hint_widths=(4, 8, 8, 8))
        judge = reward_of(recipe, backbone, {None}, silent)
        model = prepare_control(recipe, backbone, control, judge)
        execution = launch(recipe).execution(model, data, recipe.training, silent)
        return Trainer(recipe, model, data, held, execution, silent)

    return made


def test_the_reward_alone_is_learned_on_held_out_pictures(make: Make) -> None:
    """With a decoder that shows the latents: blocks of ±1, as the hints have them."""
    run = make(steps=6, validate_every=6, ema_decay=0.0, reward={"weight": 1e4, "t_max": 1000})

    def shown(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate((z[:, :3] / 2 + 0.5).clamp(0, 1), scale_factor=8)

    run.backbone.decode_with_gradient = shown
    run.run()
    first, last = (line["validation"] for line in run.log.read() if "validation" in line)
    assert last["reward"] < 0.97 * first["reward"]


def test_loss_and_reward_are_logged_apart(make: Make) -> None:
    run = make(steps=2, log_every=1, reward={"samples": 1})
    lines: list[str] = []
    run.show_line = lines.append
    run.run()
    run.finish("interrupted")
    logged = [line for line in run.log.read() if "loss" in line]
    assert len(logged) == 2
    assert all(0 < line["reward"] < 1 for line in logged)
    assert all(line["reward_samples"] == 1 <= line["reward_eligible"] - 1 for line in logged)
    assert "1 of " in lines[0]
    assert "eligible" in lines[0]
    page = write_report(run.folder).read_text()
    assert "<h2>Reward</h2>" in page


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_a_reward_goes_on_bit_for_bit(make: Make, precision: str) -> None:
    settings = {"accumulation": 2, "log_every": 1, "precision": precision}
    straight = make("straight", steps=3, **settings)
    straight.run()
    first = make("cut", steps=3, **settings)
    first.settings = first.settings.model_copy(update={"steps": 2})
    first.run()
    again = make("cut", steps=3, **settings)
    assert again.resume()
    again.run()
    assert equal(weights(straight), weights(again))
    rewards = [[x["reward"] for x in r.log.read() if "reward" in x] for r in (straight, again)]
    assert rewards[0] == rewards[1]
    assert len(rewards[0]) == 3


def test_a_blanked_hint_has_no_reward(make: Make) -> None:
    run = make()
    plan = run.plan
    blind = plan.__class__(**{**vars(plan), "hint_dropout": 0.99})
    assert (blind.batch(0).readings == -1).all()
    assert (plan.batch(0).readings == 0).all()


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        ({"weight": 0}, r"training\.reward\.weight is 0"),
        ({}, r"training\.reward\.weight is missing"),
        ({"weight": 1, "t_max": 1001}, r"training\.reward\.t_max is 1001"),
        ({"weight": 1, "share": 1}, r"training\.reward\.share is 1"),
        ({"weight": 1, "samples": 0}, r"training\.reward\.samples is 0"),
        ({"weight": 1, "reader": ""}, "reader is empty"),
        ({"weight": 1, "smaples": 1}, "did you mean samples"),
    ],
)
def test_settings_of_a_reward_that_are_wrong_are_named(
    reward: dict[str, Any], sentence: str
) -> None:
    values = {"out": "x", "data": {"train": "x", "condition": "canny"}}
    with pytest.raises(UserError, match=sentence):
        parse_recipe({**values, "training": {"steps": 1, "reward": reward}})


def test_a_lora_of_the_base_has_no_reward() -> None:
    values = {"out": "x", "lora": {}, "data": {"train": "x"}}
    values["training"] = {"steps": 1, "reward": {"weight": 1}}
    with pytest.raises(UserError, match="has no hints"):
        check_recipe(LoraRecipe, values, "recipe")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"control": {"kind": "lora", "options": {"rank": 2}}},
        {"control": {"kind": "t2i_adapter"}},
        {"checkpointing": "full", "precision": "bf16"},
        {"control.unlock_decoder": True},
    ],
    ids=["lora", "t2i_adapter", "checkpointing", "unlocked"],
)
def test_other_networks_train_with_a_reward(recipe, changes: dict[str, Any]) -> None:
    from zeroconv.training import train

    reward = {"weight": 1.0, "share": 0.5}
    changes = {"data.condition": "recolor", "steps": 2, "log_every": 1, **changes}
    out = train(recipe(reward=reward, **changes), say=silent)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(0 < line["reward"] < 1 for line in lines if "lr" in line)


@pytest.mark.slow
def test_the_read_back_loss_of_a_playroom_control_falls_on_held_out_scenes(tmp_path: Path) -> None:
    """From the shipped canny control, the reward alone, twelve steps."""
    from zeroconv.training import train

    recipe = parse_recipe(
        {
            "out": str(tmp_path / "run"),
            "control": {"init": "playroom-canny"},
            "data": {"train": "playroom:train:96", "validation": "playroom:val:16",
                     "condition": "canny", "cache": str(tmp_path / "cache")},
            "training": {
                "steps": 12, "batch_size": 8, "optimizer": "muon", "learning_rate": 1e-3,
                "ema_decay": 0.5, "validate_every": 12, "sample_count": 0,
                "reward": {"weight": 100, "share": 0.9},
            },
        }
    )  # fmt: skip
    out = train(recipe, say=silent)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    first, last = (line["validation"]["reward"] for line in lines if "validation" in line)
    assert last < 0.98 * first
