"""Every baseline through the whole of a run: from its recipe to its folder, stopped and gone on
with, in bf16.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.baselines.test_baselines import KINDS, OPTIONS
from zeroconv.backbones import load_backbone
from zeroconv.baselines import BASELINES, load_baseline
from zeroconv.errors import UserError
from zeroconv.training import train
from zeroconv.training.folder import open_run
from zeroconv.training.recipes.control import ControlSettings
from zeroconv.training.recipes.recipe import Recipe, parse_recipe

Make = Callable[..., Recipe]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "control" / "diffusion_pytorch_model.safetensors")


def quiet(line: str) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_resuming_is_never_having_stopped(recipe: Make, kind: str, tmp_path: Path) -> None:
    control = {"kind": kind, "options": OPTIONS[kind]}
    settings = {
        "control": control,
        "checkpoint_every": 2,
        "optimizer": "muon" if kind == "lora" else "adamw",
    }
    straight = train(recipe(out=str(tmp_path / "straight"), steps=4, **settings), say=quiet)
    lines: list[str] = []
    for steps in (2, 4):
        parts = train(
            recipe(out=str(tmp_path / "parts"), steps=steps, **settings), say=lines.append
        )
    assert "going on from step 2 of 4" in lines
    a, b = weights(straight), weights(parts)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    loaded = load_baseline(parts / "control", load_backbone(recipe().base))
    assert loaded.config["kind"] == kind and loaded.config["zeroconv"]["condition"] == "depth"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_bf16_with_pictures_and_validation(recipe: Make, kind: str) -> None:
    control = {"kind": kind, "options": OPTIONS[kind]}
    # group norms want more than one value a channel, and a sheet may draw one picture at a time
    large = {"data.size": 128} if kind == "controlnet_xs" else {}
    settings = {
        **large,
        "precision": "bf16",
        "sample_count": 2,
        "sample_steps": 2,
        "validate_every": 2,
        "log_every": 1,
    }
    out = train(recipe(control=control, steps=2, **settings), say=quiet)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)
    first = next(line["validation"] for line in lines if "validation" in line)
    assert (abs(first["true"] - first["none"]) < 1e-4) == BASELINES[kind].exact_start
    assert (out / "samples" / "step-00000002.png").is_file()
    assert all(
        value.dtype == torch.float32 and value.isfinite().all() for value in weights(out).values()
    )


def test_going_on_from_a_saved_baseline(recipe: Make, tmp_path: Path) -> None:
    first = train(recipe(control={"kind": "side", "options": OPTIONS["side"]}, steps=3), say=quiet)
    again = recipe(out=str(tmp_path / "second"), steps=1, control={"init": str(first / "control")})
    old, new = weights(first), weights(train(again, say=quiet))
    assert all(torch.allclose(old[key], new[key], atol=5e-3) for key in old)
    assert not all(torch.equal(old[key], new[key]) for key in old)


def test_an_option_that_is_not_there_is_one_sentence(recipe: Make) -> None:
    with pytest.raises(UserError, match="lora has no option 'ranks'; it has rank, hint_form"):
        train(recipe(control={"kind": "lora", "options": {"ranks": 4}}), say=quiet)


def test_computing_again_is_not_for_baselines(recipe: Make) -> None:
    with pytest.raises(
        UserError, match=r"training.checkpointing works for a ControlNet or a LoRA of the base"
    ):
        train(
            recipe(control={"kind": "side", "options": OPTIONS["side"]}, checkpointing="full"),
            say=quiet,
        )


def test_recipes_know_every_baseline() -> None:
    kinds = get_args(ControlSettings.model_fields["kind"].annotation)
    assert list(kinds) == ["controlnet", *BASELINES, "union"]


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        (
            {"kind": "lora", "hint_widths": [4, 8, 8, 8]},
            "control.hint_widths is ControlNet's; a lora takes",
        ),
        ({"kind": "side", "frozen_copy": True}, "control.frozen_copy is ControlNet's"),
        ({"options": {"rank": 3}}, "control.options are a baseline's"),
        ({"kind": "side", "init": "somewhere"}, "brings its own network, so control.kind"),
        ({"kind": "dreambooth"}, "control.kind is 'dreambooth'"),
    ],
)
def test_conflicts_are_refused(control: dict, sentence: str) -> None:
    least = {"out": "x", "data": {"train": "p", "condition": "canny"}, "training": {"steps": 1}}
    with pytest.raises(UserError, match=sentence):
        parse_recipe({**least, "control": control})


def test_runs_begun_before_there_were_baselines_go_on(recipe: Make) -> None:
    """What a run was begun with is kept in its folder; what it does not say has its default."""
    begun = recipe()
    open_run(begun)
    out = Path(begun.out)
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / f"step-{1:08d}-{0:016x}.pt").touch()
    note = json.loads((out / "recipe.json").read_text())
    del note["recipe"]["control"]["kind"], note["recipe"]["control"]["options"]
    (out / "recipe.json").write_text(json.dumps(note))
    open_run(begun)
    with pytest.raises(UserError, match="the run of another recipe"):
        open_run(recipe(control={"kind": "side"}))
