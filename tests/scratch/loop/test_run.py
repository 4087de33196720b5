"""A training goes on where it stopped, bit for bit, whatever stopped it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.scratch.tiny import make_shards, tiny_task
from zeroconv.errors import Interrupted, UserError
from zeroconv.scratch.corpus.batch import Mixture
from zeroconv.scratch.corpus.latents import Latents
from zeroconv.scratch.loop.plan import Plan, load_plan
from zeroconv.scratch.loop.run import Rhythm, Run


def a_run(folder: Path, shards: Path, seed: int = 0, **plan) -> Run:
    pace = Plan(**{"first_steps": 4, "batch": 4, "warmup": 3, **plan})
    task, mixture = tiny_task(seed), Mixture(batch=4)
    feed = Latents(
        task, shards, folder / "shards.json", pace, mixture, look=3, report=lambda _: None
    )
    return Run(task, feed, pace, folder, 4, rhythm=Rhythm(log=2), report=lambda _: None)


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", weights_only=True)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return make_shards(tmp_path / "shards", "scenes-train-000", "stickers-train-000")


@pytest.mark.slow
def test_a_scratch_run_cut_anywhere_ends_bit_for_bit_like_one_that_was_not(
    tmp_path: Path, shards: Path
) -> None:
    straight = a_run(tmp_path / "whole", shards)
    straight.go(8)

    for seed, steps in enumerate((3, 2, 3)):  # over the change of size at step 4; new weights each
        a_run(tmp_path / "cut", shards, seed).go(steps)

    assert same(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))
    assert not same(state_of(tmp_path / "whole")["model"], tiny_task().model.state_dict())


@pytest.mark.slow
def test_a_scratch_run_goes_on_from_a_state_of_the_older_format(
    tmp_path: Path, shards: Path
) -> None:
    """That counted the steps of AdamW's group instead of each parameter's."""
    a_run(tmp_path / "whole", shards).go(3)
    a_run(tmp_path / "cut", shards).go(2)
    state = state_of(tmp_path / "cut")
    state["optimizer"]["param_groups"][1]["steps"] = 2
    for values in state["optimizer"]["state"].values():
        values.pop("step", None)
    torch.save(state, tmp_path / "cut/state.pt")

    a_run(tmp_path / "cut", shards, seed=1).go(1)

    assert same(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))


@pytest.mark.slow
def test_a_resumed_scratch_run_takes_up_shards_at_the_steps_of_the_first_one(
    tmp_path: Path, shards: Path
) -> None:
    first = a_run(tmp_path / "a", shards)
    first.go(2)
    make_shards(shards, "scenes-train-001")
    first.go(3)  # looks at step 3
    (tmp_path / "a/state.pt").unlink()
    make_shards(shards, "scenes-train-002")  # came after the steps that are done again

    again = a_run(tmp_path / "a", shards)
    again.go(5)

    assert same(first.task.model.state_dict(), again.task.model.state_dict())
    assert "scenes-train-002" not in again.feed.corpus.names
    again.go(2)
    assert "scenes-train-002" in again.feed.corpus.names


def test_a_loss_that_is_no_number_stops_the_scratch_run_and_leaves_the_weights(
    tmp_path: Path, shards: Path
) -> None:
    run = a_run(tmp_path / "run", shards)
    run.go(1)
    before = {k: v.clone() for k, v in run.task.model.state_dict().items()}
    broken = run.task.loss
    run.task.loss = lambda *a: broken(*a) * float("nan")  # type: ignore[method-assign]

    with pytest.raises(FloatingPointError, match="step 1"):
        run.go(1)

    assert same(before, run.task.model.state_dict())


def test_a_scratch_run_that_is_asked_to_stop_saves_and_is_no_finished_one(
    tmp_path: Path, shards: Path
) -> None:
    run = a_run(tmp_path / "run", shards, decay_from=3, decay_steps=4)
    loss = run.task.loss

    def stopping(*inputs: torch.Tensor) -> torch.Tensor:
        if run.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return loss(*inputs)

    run.task.loss = stopping  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="at step 2"):
        run.finish()
    assert state_of(tmp_path / "run")["progress"]["step"] == 2

    assert a_run(tmp_path / "run", shards, decay_from=3, decay_steps=4).finish() == 7


def test_a_decay_ends_the_scratch_run_with_a_rate_of_nearly_zero(
    tmp_path: Path, shards: Path
) -> None:
    run = a_run(tmp_path / "run", shards, decay_from=3, decay_steps=4)

    assert run.go() == 7
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(2e-3 / 4)
    assert run.go() == 7


def test_a_scratch_run_refuses_the_state_of_another_model(tmp_path: Path, shards: Path) -> None:
    a_run(tmp_path / "run", shards).go(1)
    state = state_of(tmp_path / "run")
    state["model"].popitem()
    torch.save(state, tmp_path / "run/state.pt")

    with pytest.raises(UserError, match="another model"):
        a_run(tmp_path / "run", shards)


def test_a_plan_is_read_back_and_a_damaged_one_refused(tmp_path: Path) -> None:
    plan = Plan(first_steps=7, decay_from=9)
    plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan

    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json"):
        load_plan(tmp_path / "plan.json")


PROGRAM = """
import sys
from pathlib import Path
from tests.scratch.loop.test_run import a_run
run = a_run(Path(sys.argv[1]), Path(sys.argv[2]))
run.report = lambda line: print(line, flush=True)
run.go()
"""


@pytest.mark.slow
def test_sigterm_saves_the_step_that_a_scratch_run_reached(tmp_path: Path, shards: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(shards)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["."] + sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step 4 "):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    step = state_of(tmp_path / "run")["progress"]["step"]
    assert step >= 4
    other = a_run(tmp_path / "other", shards)
    other.go(step)
    assert same(state_of(tmp_path / "run"), state_of(tmp_path / "other"))
