"""Losses and weights that are no numbers: told with the step, never called finished, never in
JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.training.test_stopping import written
from tests.training.test_trainer import equal, trainer, weights
from zeroconv.cli import app
from zeroconv.errors import UserError
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.measuring.validation import HintGain
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.recipe import Recipe

__all__ = ["trainer"]
Make = Callable[..., Recipe]
BAD = [math.nan, math.inf, -math.inf]


def spoil(monkeypatch, value: float, steps: Callable[[int], bool] = lambda call: True) -> None:
    """Have the losses of some calls be no numbers."""
    original, calls = ControlledLoss.errors, [0]

    def errors(self, *words, **options):
        calls[0] += 1
        values = original(self, *words, **options)
        return values * value if steps(calls[0]) else values

    monkeypatch.setattr(ControlledLoss, "errors", errors)


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def strict(path: Path) -> list[dict]:
    lines = path.read_text().splitlines()
    return [json.loads(line, parse_constant=no_constant) for line in lines]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_a_loss_that_is_never_a_number_ends_the_run_with_its_step(
    trainer, monkeypatch, value: float, steps: int
) -> None:
    run = trainer(steps=steps, log_every=1, checkpoint_every=1)
    before = weights(run)
    spoil(monkeypatch, value)
    with pytest.raises(
        UserError, match=r"^the loss is no number .*step.* 1 .*: base, control.init"
    ):
        run.run()
    assert equal(before, weights(run))
    strict(run.log.path)


def test_the_command_says_no_number_and_never_finished(
    recipe: Make, tmp_path: Path, monkeypatch
) -> None:
    spoil(monkeypatch, math.nan)
    made = recipe(steps=3, validate_every=1, log_every=1)
    done = CliRunner().invoke(app, ["train", written(made, tmp_path)])
    assert done.exit_code == 2
    assert "the loss is no number in steps 1 to 3" in done.stderr and "Traceback" not in done.output
    assert "finished" not in done.output and not (made.out / "control").exists()
    assert not (made.out / "summary.json").exists()
    assert any(
        line.get("validation", {}).get("gain", 0) is None for line in strict(made.out / "log.jsonl")
    )
    assert "<table>" in (made.out / "report.html").read_text()


def test_the_last_losses_are_no_numbers_and_the_run_says_so(trainer, monkeypatch) -> None:
    run, lines = trainer(steps=6), []
    run.show_line = lines.append
    spoil(monkeypatch, math.nan, lambda call: call > 4)
    assert run.run() == "finished"
    assert "the loss was no number in steps 5 to 6, which changed nothing" in lines
    assert all(bool(w.isfinite().all()) for w in weights(run))


def test_weights_that_are_no_numbers_are_not_saved(trainer) -> None:
    """The loss was finite, and the update was not."""
    run = trainer(steps=6, checkpoint_every=2)
    original = run._train_step

    def train_step(micro):
        loss = original(micro)
        if run.step == 3 and not run.rollbacks:
            with torch.no_grad():
                run.parameters[0].fill_(math.nan)
        return loss

    run._train_step = train_step  # type: ignore[method-assign]
    assert run.run() == "finished"
    assert run.rollbacks == 1
    assert all(bool(w.isfinite().all()) for w in weights(run))
    for path in checkpoints(run.folder / "checkpoints"):
        state = torch.load(path, weights_only=True)["control"]
        assert all(bool(w.isfinite().all()) for w in state.values())


def test_a_validation_that_is_no_number_is_not_the_best_for_ever(trainer) -> None:
    run = trainer(steps=4, validate_every=1, checkpoint_every=1)
    truths = iter([math.nan, math.nan, 0.9, 0.5, 0.7])
    run.validator.measure = lambda: HintGain(next(truths), 1.0, 1.0, 0.1, math.nan)
    run.run()
    assert run.best["step"] == run.kept["step"] == 3
    assert [line["step"] for line in run.history] == [2, 3, 4]
    logged = [line["validation"] for line in strict(run.log.path) if "validation" in line]
    assert [line["true"] for line in logged] == [None, None, 0.9, 0.5, 0.7]
    assert all(line["gain_error"] is None for line in logged)
