"""What a run does when something happens: the hints are followed, the loss breaks down, the best
weights pass by.
"""

from __future__ import annotations

import pytest
import torch

from tests.training.test_trainer import equal, trainer, weights
from zeroconv.errors import UserError
from zeroconv.training.checkpoint import checkpoints, load_checkpoint, step_of
from zeroconv.training.recipes.recipe import parse_recipe

__all__ = ["trainer"]

LEARNS = {
    "steps": 60,
    "batch_size": 8,
    "validate_every": 6,
    "ema_decay": 0.9,
    "checkpoint_every": 6,
}


@pytest.mark.slow
def test_convergence_is_noticed_and_may_end_the_run(trainer) -> None:
    run = trainer(**LEARNS, on_convergence="stop_after=6")
    assert run.run() == "finished"
    assert run.converged is not None and run.converged["step"] <= run.converged["seen"]
    assert run.step == run.converged["seen"] + 6 < 60
    events = [line for line in run.log.read() if line.get("event") == "converged"]
    assert len(events) == 1 and events[0]["converged"]["confidence"] > 0.99
    again = trainer(**LEARNS, on_convergence="stop_after=6")  # the same command, given once more
    assert again.resume() and again.run() == "finished" and again.step == run.step
    assert equal(weights(again), weights(run))


@pytest.mark.slow
def test_hints_without_information_raise_no_alarm(trainer) -> None:
    run = trainer(blind=True, **LEARNS)
    run.run()
    assert run.step == 60 and run.converged is None


@pytest.mark.slow
def test_after_convergence_the_rate_falls_or_the_batch_grows(trainer) -> None:
    for action, rate, accumulation in (("lower_lr=0.1", 3e-4, 1), ("enlarge_batch=3", 3e-3, 3)):
        run = trainer(action[:5], **LEARNS, on_convergence=action)
        assert (run.learning_rate(), run.accumulation) == (3e-3, 1)
        run.run()
        assert run.learning_rate() == pytest.approx(rate) and run.accumulation == accumulation
        after = 60 - run.converged["seen"]
        assert run.micro == 60 + (accumulation - 1) * after
        again = trainer(action[:5], **LEARNS, on_convergence=action)
        assert again.resume() and (again.micro, again.converged) == (run.micro, run.converged)


def test_unknown_event_actions_are_refused() -> None:
    base = {"out": "x", "data": {"train": "x", "condition": "canny"}}
    for text in ("stop", "lower_lr=2", "enlarge_batch=0", "enlarge_batch=1.5", "sing=3"):
        with pytest.raises(UserError, match="stop_after"):
            parse_recipe({**base, "training": {"steps": 5, "on_convergence": text}})
    blind = {"steps": 5, "on_convergence": "stop_after=3", "validate_every": 0}
    with pytest.raises(UserError, match="validate_every is 0"):
        parse_recipe({**base, "training": blind})


def break_down(run, steps: set[int], times: int) -> None:
    """Make the loss of some steps no number, the first `times` times that they come."""
    original, left = run._train_step, dict.fromkeys(steps, times)

    def train_step(micro):
        if left.get(run.step):
            left[run.step] -= 1
            run._skip(float("nan"))
            return float("nan"), float("nan")
        return original(micro)

    run._train_step = train_step


def test_a_loss_that_breaks_down_returns_to_a_checkpoint(trainer) -> None:
    run = trainer(steps=14, checkpoint_every=4)
    break_down(run, set(range(5, 10)), times=1)
    taken = []
    original = run._train_step
    run._train_step = lambda micro: (
        taken.append((run.step, micro[0].indices.tolist())),
        original(micro),
    )[1]
    assert run.run() == "finished" and run.step == 14 and run.rollbacks == 1
    assert run.learning_rate() == pytest.approx(3e-3 / 2)
    events = [line for line in run.log.read() if line.get("event") == "rolled back"]
    assert [line["to"] for line in events] == [4 + 0] or [line["to"] for line in events] == [8]
    again = [batch for step, batch in taken if step == events[0]["to"]]
    assert len(again) == 2 and again[0] != again[1]  # other pictures than those before the return
    assert all(torch.isfinite(w).all() for w in weights(run))


def test_a_run_that_breaks_down_again_and_again_stops_with_a_sentence(trainer) -> None:
    run = trainer(steps=40, checkpoint_every=3)
    break_down(run, set(range(4, 40)), times=99)
    with pytest.raises(UserError, match="after 3 returns to a checkpoint; lower"):
        run.run()


@pytest.mark.slow
def test_the_best_checkpoint_outlives_the_newest(trainer) -> None:
    run = trainer(steps=20, checkpoint_every=2, keep=2, validate_every=2)
    losses = iter([1.0, 0.9, 0.5, 0.2, *[0.8] * 20])  # step 6 is the best
    measure = run.validator.measure

    def measured():
        gain = measure()
        return type(gain)(next(losses), gain.shuffled, gain.none, gain.gain, gain.gain_error)

    run.validator.measure = measured
    run.run()
    steps = sorted(step_of(path) for path in checkpoints(run.folder / "checkpoints"))
    assert steps == [6, 18, 20] and run.kept["step"] == 6
    best = load_checkpoint(run.folder / "checkpoints", step=6)["ema"]["average"]
    assert run.export_best(run.folder / "best") and equal(run.ema.average, best)
    assert (run.folder / "best" / "config.json").is_file()
