"""Figure 9: every network of it is a valid recipe, and its verdicts follow from the figures."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from experiments import racing
from experiments.fig09_baselines import claims, sheet
from experiments.racing import ENTRIES, ROOT, pace
from zeroconv.backbones import load_backbone
from zeroconv.baselines import BASELINES
from zeroconv.training.assembling import make_control
from zeroconv.training.recipes.recipe import load_recipe, parse_recipe


@pytest.mark.parametrize("name", ENTRIES)
def test_every_network_can_be_built_around_the_playroom(name: str) -> None:
    values = load_recipe(ROOT / "recipes" / "playroom-canny.yaml").model_dump(mode="json")
    recipe = parse_recipe({**values, "control": ENTRIES[name].control})
    net = make_control(recipe, load_backbone("playroom"))
    assert net.config["zeroconv"]["condition"] == "canny"


def test_no_baseline_is_left_out() -> None:
    kinds = {entry.control.get("kind") for entry in ENTRIES.values()}
    assert kinds | racing.LATER == {None, *BASELINES} and not kinds & racing.LATER


def results(**scores: float) -> dict[str, Any]:
    """Results in which every picture of a network has the score given, and its FID is 10 less that,
    within 0.01.
    """

    def report(score: float) -> dict[str, Any]:
        fid = {"own": {"mean": 10 - score, "low": 9.99 - score, "high": 10.01 - score}}
        return {"scores": [score, score + 0.01, score], "pictures": {"fid": fid}}

    return {name.replace("_lite", "-lite"): {"reports": {w: report(s) for w in ("steps", "time")}}
            for name, s in scores.items()}  # fmt: skip


def test_ahead_of_all_agrees() -> None:
    assert [
        c.agrees for c in claims(results(controlnet=0.7, controlnet_lite=0.5, lora=0.6, side=0.2))
    ] == [True] * 4


def test_one_baseline_ahead_does_not() -> None:
    made = claims(results(controlnet=0.7, lora=0.8, side=0.2))
    assert [c.agrees for c in made] == [False, False]
    assert "above that of side network, below LoRA, hint concatenated," in made[0].ours


def test_level_with_all_does_not() -> None:
    made = claims(results(controlnet=0.7, controlnet_lite=0.7, lora=0.7))
    assert [c.agrees for c in made] == [False] * 4
    assert "not to be told from LoRA" in made[-1].ours


def test_pace_is_that_of_the_steps_between_lines(tmp_path) -> None:
    lines = [
        {"step": 0, "validation": {}},
        *({"step": 10 * i, "seconds": 20.0 * i} for i in range(1, 5)),
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert pace(tmp_path / "log.jsonl") == 2.0


def fake_leg(trained: list, seconds: float = 1.0, losses: dict | None = None):
    """A stand-in for `leg`: runs of `seconds` a step whose weights name their length."""

    def leg(folder, arguments, name, chosen, steps) -> dict:
        trained.append((chosen[0], steps))
        (folder / "control").mkdir(parents=True, exist_ok=True)
        (folder / "control" / "weights").write_text(str(steps))
        lines = [{"step": i, "seconds": i * seconds} for i in range(10, steps + 1, 10)]
        (folder / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
        return {"steps": steps, "validation": {"true": (losses or {}).get(chosen[0], 1.0)}}

    return leg


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(1.0, [40, 100, 200]), (4.0, [40, 50, 100]), (8.0, [40, 40, 100])]
)
def test_a_slower_network_gets_fewer_steps_in_equal_time(
    tmp_path, monkeypatch, seconds: float, wanted: list
) -> None:
    trained: list = []
    monkeypatch.setattr(racing, "leg", fake_leg(trained, seconds))
    arguments = argparse.Namespace(steps=100, tune=0)
    for _ in range(2):  # the second finds everything done
        legs = racing.train_both(tmp_path, arguments, "lora", ("muon", 1e-3), 2.0)
    assert sorted(steps for _, steps in trained) == wanted
    assert (tmp_path / "lora" / "at-steps" / "weights").read_text() == "100"
    assert legs["time"]["steps"] == max(40, round(100 * 2 / seconds))


def test_paces_gauged_before_are_not_taken_again(tmp_path, monkeypatch) -> None:
    trained: list = []
    arguments = argparse.Namespace(steps=100, tune=40)
    racing.write_json(racing.pace_file(tmp_path, "lora", ("adamw", 1e-3)), 0.5)
    monkeypatch.setattr(racing, "leg", fake_leg(trained, seconds=50.0))  # beside other programs
    legs = racing.train_both(tmp_path, arguments, "lora", ("adamw", 1e-3), 1.0)
    assert legs["time"]["steps"] == 200
    assert legs["steps"]["seconds_a_step"] == 0.5


def test_the_optimiser_with_the_lowest_loss_goes_on_from_its_race(tmp_path, monkeypatch) -> None:
    trained: list = []
    arguments = argparse.Namespace(steps=100, tune=40)
    monkeypatch.setattr(racing, "leg", fake_leg(trained, losses={"muon": 0.3, "adamw": 0.2}))
    for _ in range(2):
        assert racing.choose(tmp_path, "lora", arguments) == ("adamw", 1e-3)
    assert trained == [("muon", 40), ("adamw", 40)]
    assert (tmp_path / "lora" / "run" / "control" / "weights").read_text() == "40"
    assert [path.name for path in (tmp_path / "tune-40").iterdir()] == ["lora.json"]


def test_a_sheet_has_a_column_a_network(tmp_path) -> None:
    from PIL import Image

    for name in ("controlnet", "lora"):
        (tmp_path / name).mkdir()
        for kind in ("hint", "real", "made-steps"):
            Image.new("RGB", (128, 128), "red").save(tmp_path / name / f"{kind}-0.png")
    sheet(results(controlnet=1.0, lora=1.0), tmp_path, "steps", tmp_path / "sheet.jpg")
    assert Image.open(tmp_path / "sheet.jpg").size == (4 + 4 * 132, 16 + 132)
