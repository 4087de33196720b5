"""The plan of a run: made once, kept, and chosen anew on another machine."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.scratch.tiny import TEXT, UNET, make_shards, tiny_task
from zeroconv.scratch.export.bases import export_base
from zeroconv.scratch.loop import command
from zeroconv.scratch.loop.plan import load_plan
from zeroconv.scratch.loop.precision import fastest
from zeroconv.scratch.loop.state import read_average


def asked(folder: Path, **given) -> argparse.Namespace:
    settings = {"first_steps": 5, "batch": 4, "rate": 1e-3, "threads": 1, "precision": None}
    return argparse.Namespace(folder=folder, **{**settings, "compile": None, **given})


def test_the_plan_of_a_run_outlives_other_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "fastest", lambda make, batch: "bfloat16")
    first = command.plan_of(asked(tmp_path), tiny_task)
    later = command.plan_of(asked(tmp_path, batch=64, rate=1.0, first_steps=9), tiny_task)

    assert first == later and first.precision == "bfloat16" and first.batch == 4


def test_precision_is_measured_once_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    monkeypatch.setattr(command, "fastest", lambda make, batch: measured.append(1) or "float32")
    command.plan_of(asked(tmp_path), tiny_task)
    command.plan_of(asked(tmp_path), tiny_task)
    monkeypatch.setattr(command, "_machine", lambda: "another")
    command.plan_of(asked(tmp_path), tiny_task)

    assert len(measured) == 2
    assert load_plan(tmp_path / "plan.json").machine == "another"  # type: ignore[union-attr]


def test_fastest_measures_both(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"float32": 2.0, "bfloat16": 1.0}
    monkeypatch.setattr(
        "zeroconv.scratch.loop.precision._seconds", lambda task, _: taken[task.precision]
    )
    assert fastest(tiny_task, 4) == "bfloat16"
    taken["bfloat16"] = 3.0
    assert fastest(tiny_task, 4) == "float32"


@pytest.mark.slow
def test_a_run_from_the_command_line_trains_decays_and_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_shards(tmp_path / "shards", "scenes-train-000", "stickers-train-000")
    run = tmp_path / "run"
    line = f"base {run} --shards {shards} --batch 4 --first-steps 2 --threads 1 --precision float32"
    for extra in (" --steps 3", " --decay 2", " --decay 9"):
        monkeypatch.setattr("sys.argv", (line + extra).split())
        command.run("base", "", lambda arguments, **how: tiny_task(**how))

    plan = load_plan(run / "plan.json")
    assert plan is not None and (plan.decay_from, plan.decay_steps) == (3, 2)
    weights, step = read_average(run, "0.999")
    assert step == 5

    assert export_base(run, tmp_path / "base", "0.999", unet=UNET, text=TEXT) == 5
    names = {path.name for path in (tmp_path / "base").iterdir()}
    parts = {"unet", "text_encoder", "vae", "tokenizer", "scheduler"}
    assert parts | {"model_index.json"} <= names
    assert any(name.startswith("unet.") for name in weights)


def test_missing_average_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none yet"):
        read_average(tmp_path, "0.5")
