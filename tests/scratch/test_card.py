"""The training by the clock, at a tiny size on the processor, with a clock of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.scratch.tiny import make_shards, tiny_task
from zeroconv.errors import UserError
from zeroconv.scratch.card import train
from zeroconv.scratch.corpus.batch import Mixture
from zeroconv.scratch.corpus.latents import Latents
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.loop.state import read_average


class Clock:
    """Seconds that pass by steps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def a_training(folder: Path, seconds: float, **changed: Any) -> tuple[int, list[int]]:
    """Train by a clock on which a step takes a second; returns the steps and sizes of latents."""
    task, clock, sizes = tiny_task(), Clock(), []
    draw, loss = task.draw, changed.get("loss", task.loss)

    def drawn(batch, seed: int, step: int):
        clock.seconds += 1
        sizes.append(batch.latents.shape[-1])
        return draw(batch, seed, step)

    task.draw, task.loss = drawn, loss  # type: ignore[method-assign]
    budget = Budget(1e-3, seconds=seconds)
    names = ("scenes-train-000", "stickers-train-000")
    shards = make_shards(folder / "shards", *names)
    feed = Latents(
        task, shards, folder / "shards.json", budget, Mixture(batch=4), hold=(64, 128),
        report=lambda _: None,
    )  # fmt: skip
    steps = train(task, feed, folder, budget, report=lambda _: None, now=clock)

    return steps, sizes


def test_the_card_training_passes_through_both_sizes_and_writes_its_averages(
    tmp_path: Path,
) -> None:
    steps, sizes = a_training(tmp_path, 9)

    assert sizes == [8, 8, 8, 16, 16, 16, 16, 16, 16]
    assert read_average(tmp_path, "0.9995")[1] == steps == 9


def test_a_card_training_goes_on_with_the_time_that_is_left(tmp_path: Path) -> None:
    a_training(tmp_path, 3)
    steps, sizes = a_training(tmp_path, 6)

    assert steps == 6 and sizes == [16, 16, 16]


def test_a_card_training_without_time_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--minutes"):
        a_training(tmp_path, -1)


def test_the_budget_of_a_clock_lets_the_rate_rise_and_fall_to_zero() -> None:
    budget = Budget(2.0, seconds=100, warmup=10)
    rates = [budget.rate_of(step, s) for s, step in [(0, 0), (1, 20), (74, 99), (99, 200)]]

    assert rates == pytest.approx([0.2, 2.0, 2.0, 0.08])


def test_a_card_training_whose_loss_is_no_number_writes_nothing(tmp_path: Path) -> None:
    task = tiny_task()

    with pytest.raises(FloatingPointError):
        a_training(tmp_path, 3, loss=lambda *drawn: task.loss(*drawn) * float("nan"))

    assert not list(tmp_path.glob("average-*")) and not (tmp_path / "state.pt").exists()
