"""Trackers hear what the log says: scalars and sheets read back from TensorBoard's own files."""

from __future__ import annotations

import importlib.util
import io
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zeroconv.errors import UserError
from zeroconv.training import train
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reporting.trackers import Tracking, flatten, scalars

Make = Callable[..., Recipe]
OPTIONS = {
    "report_to": "tensorboard",
    "log_every": 1,
    "validate_every": 2,
    "sample_count": 2,
    "sample_steps": 1,
}


def events(out: Path) -> EventAccumulator:
    read = EventAccumulator(
        str(out / "tensorboard" / "zeroconv"), size_guidance={"scalars": 0, "images": 0}
    )
    read.Reload()
    return read


def started(recipe: Any, accelerator: Any, step: int, lines: Any = ()) -> Tracking:
    tracking = Tracking(recipe, accelerator)
    tracking.start(step, lines)
    return tracking


def test_trackers_hear_the_held_out_loss_of_a_lora() -> None:
    assert scalars({"validation": {"loss": 0.5}}) == {"validation/loss": 0.5}


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_tensorboard_hears_what_the_log_says(recipe: Make) -> None:
    out = train(recipe(steps=4, **OPTIONS), say=lambda line: None)
    read, log = events(out), log_of(out)
    for name in ("loss", "lr", "samples_per_second", "gradient"):
        written = {line["step"]: line[name] for line in log if name in line}
        assert len(written) == 4
        assert {e.step: e.value for e in read.Scalars(f"train/{name}")} == pytest.approx(
            written, rel=1e-5
        )
    gains = {line["step"]: line["validation"]["gain"] for line in log if "validation" in line}
    assert list(gains) == [0, 2, 4]
    recorded = {e.step: e.value for e in read.Scalars("validation/hint_gain")}
    assert recorded == pytest.approx(gains, rel=1e-5, abs=1e-9)
    for name in ("loss_true_hint", "loss_anothers_hint", "loss_no_control"):
        assert len(read.Scalars(f"validation/{name}")) == 3
    shown = read.Images("samples")
    assert [e.step for e in shown] == [4]
    with (
        Image.open(io.BytesIO(shown[0].encoded_image_string)) as recorded_sheet,
        Image.open(out / "samples" / "step-00000004.png") as sheet,
    ):
        assert recorded_sheet.tobytes() == sheet.convert("RGB").tobytes()
    settings = next((out / "tensorboard").rglob("hparams.yml")).read_text()
    assert "training.learning_rate: 0.001" in settings


@pytest.mark.slow
def test_a_run_that_goes_on_takes_back_what_it_did_after_its_checkpoint(
    recipe: Make, monkeypatch
) -> None:
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
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == name else find(n, *a)
    )
    with pytest.raises(
        UserError, match=rf"names {name}, which is not installed: pip install 'zeroconv\[{name}\]'"
    ):
        train(recipe(report_to=[name]))
    with pytest.raises(UserError, match="report_to"):
        recipe(report_to="mlflaw")


class Fake:
    """Takes a tracker's place in accelerate; `known` steps are those that it has of an earlier
    start.
    """

    def __init__(self, name: str, known: int = 0) -> None:
        self.name, self.tracker = name, types.SimpleNamespace(starting_step=known, _next_step=known)
        self.logged: list[tuple[int, dict]] = []
        self.shown: list[tuple[int, dict]] = []
        self.settings: list[dict] = []

    def log(self, values: dict, step: int) -> None:
        self.logged.append((step, values))

    def log_images(self, values: dict, step: int) -> None:
        self.shown.append((step, values))

    def store_init_configuration(self, values: dict) -> None:
        self.settings.append(values)

    def finish(self) -> None:
        self.logged.append((-1, {}))


def accelerator_of(*trackers: Fake) -> types.SimpleNamespace:
    """`given`: what accelerate would hand to wandb.init and trackio.init."""
    given: dict = {}
    return types.SimpleNamespace(
        is_main_process=True,
        trackers=list(trackers),
        given=given,
        init_trackers=lambda project, init_kwargs: given.update(project=project, **init_kwargs),
    )


def test_wandb_and_trackio_get_the_run_s_name_and_id(recipe: Make, tmp_path: Path) -> None:
    fake, settings = (
        Fake("wandb"),
        recipe(report_to=["wandb", "trackio"], project="mine", out=str(tmp_path / "a-run")),
    )
    accelerator = accelerator_of(fake)
    first = started(settings, accelerator, 0)
    given, name = accelerator.given, accelerator.given["wandb"]["id"]
    assert set(given) == {"project", "wandb", "trackio"} and given["project"] == "mine"
    expected = {"name": "a-run", "id": name, "resume": "allow", "dir": str(tmp_path / "a-run")}
    assert expected.items() <= given["wandb"].items()
    # a dead server must not hold the run
    assert 0 < given["wandb"]["settings"]["finish_timeout"] <= 60
    assert given["trackio"] == {"name": f"a-run-{name[:6]}", "resume": "allow"}
    first.figures(3, {"event": "rolled back", "to": 1})
    first.figures(4, {"loss": float("nan")})
    assert fake.logged == [(3, {"events/rolled_back": 1.0})]
    Image.new("RGB", (4, 4), "red").save(tmp_path / "sheet.png")
    first.sheet(5, tmp_path / "sheet.png")
    ((step, values),) = fake.shown
    assert step == 5 and values["samples"][0].getpixel((0, 0)) == (255, 0, 0)

    started(settings, accelerator, 3)
    assert accelerator.given["wandb"]["id"] == name  # the run it was
    assert [values["training.batch_size"] for values in fake.settings] == [2, 2]
    other = accelerator_of()
    started(recipe(report_to=["trackio"], out=str(tmp_path / "b" / "a-run")), other, 0)
    # a run of the same name is another run
    assert other.given["trackio"]["name"] != given["trackio"]["name"]


@pytest.mark.parametrize(
    ("name", "known", "steps"),
    [
        ("wandb", 6, [6, 7]),  # it has steps 0 to 5
        ("trackio", 6, [5, 6, 7]),  # and perhaps not every figure of step 5
        ("wandb", 2, [2, 3, 4, 5, 6, 7]),  # a kill took what was told before the checkpoint
        ("wandb", 0, [1, 2, 3, 4, 5, 6, 7]),
        ("tensorboard", 0, [4, 5, 6, 7]),
    ],
)
def test_a_run_that_goes_on_tells_what_is_not_there(
    recipe: Make, name: str, known: int, steps: list[int]
) -> None:
    fake, lines = Fake(name, known), [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    tracking = started(recipe(report_to=[name]), accelerator_of(fake), 3, lines)
    for step in range(4, 8):
        tracking.figures(step, {"loss": 1.0})
    assert fake.logged == [(step, {"train/loss": 1.0}) for step in steps]


def test_a_tracker_that_fails_is_left_out(recipe: Make) -> None:
    bad, good = Fake("wandb"), Fake("trackio")
    tracking = started(recipe(report_to=["wandb", "trackio"]), accelerator_of(bad, good), 0)
    bad.log = lambda values, step: 1 / 0  # type: ignore[method-assign]
    with pytest.warns(
        UserWarning,
        match="wandb no longer takes what the run says .division by zero.; the run goes on",
    ):
        tracking.figures(1, {"loss": 1.0})
    tracking.figures(2, {"loss": 1.0})
    tracking.finish()
    assert [step for step, _ in good.logged] == [1, 2, -1]


def test_a_tracker_that_cannot_start_is_one_sentence(recipe: Make) -> None:
    accelerator = accelerator_of()
    accelerator.init_trackers = lambda *a, **k: 1 / 0
    with pytest.raises(
        UserError, match=r"report_to .wandb. cannot be started .division by zero.; mend that, or"
    ):
        started(recipe(report_to=["wandb"]), accelerator, 0)


def test_run_is_complete_before_a_tracker_is_waited_for(recipe: Make, monkeypatch) -> None:
    """Its server may keep a run waiting at the end: everything must be in the folder by then."""
    settings, there = recipe(steps=1), []
    summary = Path(settings.out) / "summary.json"
    monkeypatch.setattr(Tracking, "finish", lambda self: there.append(summary.is_file()))
    train(settings, say=lambda line: None)
    assert there == [True]


def test_names_and_numbers() -> None:
    assert scalars({"loss": 0.5, "seconds": 3, "note": "x"}) == {
        "train/loss": 0.5,
        "train/seconds": 3.0,
    }
    assert scalars({"validation": {"gain": 0.1, "gain_error": float("nan")}}) == {
        "validation/hint_gain": 0.1
    }
    assert flatten({"a": {"b": [1, 2], "c": None}, "d": True}) == {"a.b": "[1, 2]", "d": True}
