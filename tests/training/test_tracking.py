"""Trackers hear what the log says: scalars and sheets read back from TensorBoard's own files."""

from __future__ import annotations

import importlib.util
import io
import json
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zeroconv.errors import UserError
from zeroconv.training import train
from zeroconv.training.recipe import Recipe
from zeroconv.training.tracking import Tracking, flatten, scalars

Make = Callable[..., Recipe]
OPTIONS = {"report_to": "tensorboard", "log_every": 1, "validate_every": 2, "sample_count": 2, "sample_steps": 1}


def events(out: Path) -> EventAccumulator:
    read = EventAccumulator(str(out / "tensorboard" / "zeroconv"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    return read


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_tensorboard_hears_what_the_log_says(recipe: Make) -> None:
    out = train(recipe(steps=4, **OPTIONS), say=lambda line: None)
    read, log = events(out), log_of(out)
    for name in ("loss", "lr", "samples_per_second", "gradient"):
        written = {line["step"]: line[name] for line in log if name in line}
        assert len(written) == 4
        assert {e.step: e.value for e in read.Scalars(f"train/{name}")} == pytest.approx(written, rel=1e-5)
    gains = {line["step"]: line["validation"]["gain"] for line in log if "validation" in line}
    assert list(gains) == [0, 2, 4]
    told = {e.step: e.value for e in read.Scalars("validation/hint_gain")}
    assert told == pytest.approx(gains, rel=1e-5, abs=1e-9)
    for name in ("loss_true_hint", "loss_anothers_hint", "loss_no_control"):
        assert len(read.Scalars(f"validation/{name}")) == 3
    shown = read.Images("samples")
    assert [e.step for e in shown] == [4]
    with (
        Image.open(io.BytesIO(shown[0].encoded_image_string)) as told_sheet,
        Image.open(out / "samples" / "step-00000004.png") as sheet,
    ):
        assert told_sheet.tobytes() == sheet.convert("RGB").tobytes()
    settings = next((out / "tensorboard").rglob("hparams.yml")).read_text()
    assert "training.learning_rate: 0.001" in settings


def test_a_run_that_goes_on_takes_back_what_it_did_after_its_checkpoint(recipe: Make, monkeypatch) -> None:
    from zeroconv.training.trainer import Trainer

    step = Trainer._train_step

    def dies(self, micro):
        if self.step == 5:
            raise RuntimeError("a power cut")
        return step(self, micro)

    monkeypatch.setattr(Trainer, "_train_step", dies)
    options = {**OPTIONS, "checkpoint_every": 3, "steps": 7}
    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe(**options), say=lambda line: None)
    monkeypatch.setattr(Trainer, "_train_step", step)
    out = train(recipe(**options), say=lambda line: None)
    read = events(out)
    assert [e.step for e in read.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6, 7]
    written = {line["step"]: line["loss"] for line in log_of(out) if "loss" in line}
    assert {e.step: e.value for e in read.Scalars("train/loss")} == pytest.approx(written, rel=1e-5)
    assert len(list((out / "tensorboard").rglob("hparams.yml"))) == 1


def test_without_trackers_nothing_is_left(recipe: Make) -> None:
    out = train(recipe(steps=1), say=lambda line: None)
    assert not (out / "tensorboard").exists()
    assert not (out / "tracking.json").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_package_that_is_missing_is_one_sentence(recipe: Make, monkeypatch, name: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == name else find(n, *a))
    with pytest.raises(UserError, match=rf"names {name}, which is not installed: pip install 'zeroconv\[{name}\]'"):
        train(recipe(report_to=[name]))
    with pytest.raises(UserError, match="report_to"):
        recipe(report_to="mlflaw")


def test_the_others_are_told_who_they_are(recipe: Make, tmp_path: Path) -> None:
    """What accelerate would hand to wandb.init and trackio.init; their servers are not here."""
    given, told, shown = {}, [], []
    tracker = types.SimpleNamespace(name="wandb", log_images=lambda v, step: shown.append((v, step)), finish=dict)
    accelerator = types.SimpleNamespace(
        is_main_process=True,
        trackers=[tracker, types.SimpleNamespace(name="trackio", finish=dict)],
        init_trackers=lambda project, config, init_kwargs: given.update(
            project=project, config=config, options=init_kwargs
        ),
        log=lambda values, step: told.append((values, step)),
    )
    settings = recipe(report_to=["wandb", "trackio"], project="mine", out=str(tmp_path / "a-run"))
    first = Tracking(settings, accelerator, 0)  # type: ignore[arg-type]
    name = given["options"]["wandb"]["id"]
    assert given["project"] == "mine"
    assert given["config"]["training.batch_size"] == 2
    assert given["options"]["wandb"] == {"name": "a-run", "id": name, "resume": "allow", "dir": str(tmp_path / "a-run")}
    assert set(given["options"]) == {"wandb", "trackio"}
    Tracking(settings, accelerator, 3)  # type: ignore[arg-type]
    assert given["config"] is None
    assert given["options"]["wandb"]["id"] == name  # the run it was
    first.figures(3, {"event": "rolled back", "to": 1})
    first.figures(4, {"loss": float("nan")})
    assert told == [({"events/rolled_back": 1.0}, 3)]
    Image.new("RGB", (4, 4), "red").save(tmp_path / "sheet.png")
    first.sheet(5, tmp_path / "sheet.png")
    assert shown[0][1] == 5
    assert shown[0][0]["samples"][0].getpixel((0, 0)) == (255, 0, 0)


def test_names_and_numbers() -> None:
    assert scalars({"loss": 0.5, "seconds": 3, "note": "x"}) == {"train/loss": 0.5, "train/seconds": 3.0}
    assert scalars({"validation": {"gain": 0.1, "gain_error": float("nan")}}) == {"validation/hint_gain": 0.1}
    assert flatten({"a": {"b": [1, 2], "c": None}, "d": True}) == {"a.b": "[1, 2]", "d": True}
