"""The training by the clock, at a tiny size on the processor, with a clock of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scratch.tiny import make_shards, tiny_task
from zeroconv.errors import UserError
from zeroconv.scratch.card import Clock, train
from zeroconv.scratch.corpus import Corpus, Mixture
from zeroconv.scratch.export import read_average


def a_corpus(folder: Path, task) -> Corpus:
    names = ("scenes-train-000", "stickers-train-000")
    corpus = Corpus(make_shards(folder, *names), (64, 128), task.writers, Mixture(batch=4))
    corpus.add(names)
    return corpus


def test_the_card_training_passes_through_both_sizes_and_writes_its_averages(tmp_path: Path):
    task = tiny_task()
    corpus = a_corpus(tmp_path / "shards", task)
    sizes, ticks = [], iter(range(100))
    draw = task.draw
    task.draw = lambda batch, *rest: sizes.append(batch.latents.shape[-1]) or draw(batch, *rest)

    steps = train(
        task, corpus, tmp_path, Clock(9), 1e-3, report=lambda _: None, now=lambda: next(ticks)
    )

    assert sizes == [8, 8, 16, 16, 16, 16, 16, 16]
    assert read_average(tmp_path, "0.9995")[1] == steps == 8


def test_a_card_training_without_time_says_so(tmp_path: Path):
    task = tiny_task()
    corpus = a_corpus(tmp_path / "shards", task)

    with pytest.raises(UserError, match="--minutes"):
        train(task, corpus, tmp_path, Clock(-1), 1e-3)


def test_the_clock_lets_the_rate_rise_and_fall_to_zero():
    clock = Clock(100, warmup=10)
    factors = [
        clock.factor(seconds, step) for seconds, step in [(0, 0), (1, 20), (74, 99), (99, 200)]
    ]

    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.04])


def test_a_card_training_whose_loss_is_no_number_writes_nothing(tmp_path: Path):
    task = tiny_task()
    corpus = a_corpus(tmp_path / "shards", task)
    loss, ticks = task.loss, iter(range(100))
    task.loss = lambda *drawn: loss(*drawn) * float("nan")

    with pytest.raises(FloatingPointError):
        train(task, corpus, tmp_path, Clock(3), 1e-3, now=lambda: next(ticks))

    assert not list(tmp_path.glob("average-*"))
