"""Signals: the run is saved, and what was to follow the command does not follow."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from zeroconv.cli import app
from zeroconv.errors import Interrupted
from zeroconv.training import train
from zeroconv.training.checkpoint import checkpoints, step_of
from zeroconv.training.progress import print_line
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.stopping import StopSignals, stopped_at_once

Make = Callable[..., Recipe]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict[int, Any]]:
    """Those of the test's own, which must be there again at its end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def written(recipe: Recipe, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    return str(path)


def signal_at(step: int, number: int, monkeypatch) -> None:
    """Have the process hear a signal within a step."""
    from zeroconv.training.trainer import Trainer

    original = Trainer._train_step

    def train_step(self, micro):
        if self.step == step:
            signal.raise_signal(number)
        return original(self, micro)

    monkeypatch.setattr(Trainer, "_train_step", train_step)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_in_training_saves_and_exits_with_the_signal_s_code(
    recipe: Make, tmp_path: Path, monkeypatch, number: signal.Signals
) -> None:
    signal_at(1, number, monkeypatch)
    done = CliRunner().invoke(app, ["train", written(recipe(), tmp_path)])
    assert done.exit_code == 128 + number
    assert "interrupted at step 2, saved; the same command goes on" in done.stderr
    assert "Traceback" not in done.output
    out = Path(recipe().out)
    assert [step_of(path) for path in checkpoints(out / "checkpoints")] == [2]
    assert json.loads((out / "summary.json").read_text())["status"] == "interrupted"
    monkeypatch.undo()
    done = CliRunner().invoke(app, ["train", written(recipe(), tmp_path)])
    assert done.exit_code == 0
    assert "going on from step 2 of 6" in done.output


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_while_data_is_prepared_exits_with_the_signal_s_code(
    recipe: Make, tmp_path: Path, monkeypatch, number: signal.Signals
) -> None:
    def prepare(*words):
        signal.raise_signal(number)

    monkeypatch.setattr("zeroconv.data.cache.fill.cache_examples", prepare)
    done = CliRunner().invoke(app, ["train", written(recipe(), tmp_path)])
    assert done.exit_code == 128 + number
    assert "interrupted; the same command goes on" in done.stderr


def test_a_signal_in_the_last_step_is_no_interruption(
    recipe: Make, tmp_path: Path, monkeypatch
) -> None:
    signal_at(5, signal.SIGTERM, monkeypatch)
    done = CliRunner().invoke(app, ["train", written(recipe(), tmp_path)])
    assert done.exit_code == 0
    assert (Path(recipe().out) / "control").is_dir()


def test_train_raises_what_stops_a_program_too(recipe: Make, monkeypatch) -> None:
    signal_at(1, signal.SIGTERM, monkeypatch)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(recipe(), say=lambda line: None)
    assert isinstance(caught.value, Interrupted) and caught.value.code == 143


def test_hangups_come_in_numbers_and_end_nothing() -> None:
    with StopSignals() as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert stop.asked and stop.number == signal.SIGHUP
        signal.raise_signal(signal.SIGTERM)  # the first of those that a second one ends
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_under_nohup_a_hangup_is_nothing(handlers: dict) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for context in (StopSignals(), stopped_at_once()):
        with context:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, handlers[signal.SIGHUP])


def test_a_second_signal_ends_the_process_as_the_system_would() -> None:
    with StopSignals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_of_several_processes_a_launcher_s_echo_is_the_same_signal(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    now = [0.0]
    monkeypatch.setattr("zeroconv.training.stopping.time.monotonic", lambda: now[0])
    with StopSignals() as stop:
        for _ in range(3):  # the terminal's and the launcher's
            signal.raise_signal(signal.SIGINT)
        assert stop.asked
        now[0] = 3.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_of_several_falls_while_data_is_prepared(monkeypatch) -> None:
    """So that its launcher sees it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    with stopped_at_once():
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminal_that_is_gone_does_not_end_what_it_only_watches(monkeypatch) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdout", Gone())
    print_line("step 3/6")
