"""One training loop: resumable bit for bit, stoppable at any time.

A step is a function of the weights, the optimiser and (seed, step), so the state holds no place in
the data and no random generator. SIGTERM and Ctrl-C end the run after the current step with
everything saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zeroconv.errors import Interrupted, UserError
from zeroconv.files import atomic_write
from zeroconv.optim.muon import Muon, muon_groups
from zeroconv.scratch.loop.averages import Averages
from zeroconv.scratch.loop.gradients import Eager, Task
from zeroconv.scratch.loop.state import STATE
from zeroconv.training.stopping import GOES_ON, StopSignals

Feed = Callable[[int, float], tuple[Tensor, ...]]  # (steps done, seconds) → what `loss` takes


def print_line(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, flush=True)


class Pace(Protocol):
    """Learning rate and length of a training, of the steps done and the seconds they took."""

    def rate_of(self, step: int, seconds: float) -> float: ...

    def over(self, step: int, seconds: float) -> bool: ...


@dataclass(frozen=True)
class Rhythm:
    """How often what is done."""

    save: float = 240.0  # seconds between two states
    averages: float = 900.0  # seconds between two files of averaged weights
    log: int = 20  # steps
    check: int = 1  # steps between two looks at the loss, which wait for the device
    clip: float = 1.0  # gradient norm


class Run:
    """A training in a folder: `state.pt` and `average-*.safetensors`.

    `batch`: samples a step, for the log. `averages`: None makes those of `Averages`. `gradients`:
    inputs → loss, None is `Eager`. `saved` is called with the step after each state.

    Goes on where the folder's state ends. Raises UserError for the state of another model.
    """

    def __init__(
        self,
        task: Task,
        feed: Feed,
        pace: Pace,
        folder: Path,
        batch: int,
        *,
        rhythm: Rhythm | None = None,
        averages: Averages | None = None,
        gradients: Callable[[Sequence[Tensor]], Tensor] | None = None,
        device: str = "cpu",
        report: Callable[[str], None] = print_line,
        saved: Callable[[int], None] = lambda step: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.task, self.feed, self.pace = task, feed, pace
        self.folder, self.batch, self.device = folder, batch, device
        self.rhythm = rhythm or Rhythm()
        self.report, self.saved, self.now = report, saved, now

        groups = muon_groups([task.model])
        self.optimizer = Muon(groups, lr=pace.rate_of(0, 0.0), stacked=True)
        self.averages = averages or Averages(task.model)
        self.gradients = gradients or Eager(task)

        self.step, self.seconds, self.smooth = 0, 0.0, math.nan
        self.stopped_by = 0  # the signal that ended `go`
        self._restore()

    def go(self, steps: int | None = None) -> int:
        """Train until the pace's end, a signal, or for `steps`; returns the step reached.

        Raises FloatingPointError where the loss is no number; the state saved last stays.
        """
        last = math.inf if steps is None else self.step + steps
        begun = saved = averaged = logged = self.now()
        before, loss = self.seconds, None

        with StopSignals() as signals:
            while self.step < last and not self._over() and not signals.asked:
                loss = self._one_step()
                now = self.now()
                self.seconds = before + now - begun

                if self.step % self.rhythm.log == 0:
                    self._log(_checked(loss, self.step), now - logged)
                    logged = now
                if now - saved > self.rhythm.save:
                    self.save(loss)
                    saved = self.now()
                if now - averaged > self.rhythm.averages:
                    _checked(loss, self.step)
                    self.averages.save(self.folder, self.step)
                    averaged = self.now()

        self.save(loss)
        self.averages.save(self.folder, self.step)
        self.stopped_by = signals.number if signals.asked else 0
        return self.step

    def finish(self) -> int:
        """`go` to the end. Raises Interrupted where a signal ended it before; the state is
        saved.
        """
        step = self.go()
        if self.stopped_by:
            raise Interrupted(f"interrupted at step {step}; {GOES_ON}", self.stopped_by)

        return step

    def _over(self) -> bool:
        return self.pace.over(self.step, self.seconds)

    def _one_step(self) -> Tensor:
        """Train on one batch; returns its loss. Where each loss is looked at, one that is no number
        has changed nothing.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.pace.rate_of(self.step, self.seconds)

        loss = self.gradients(self.feed(self.step, self.seconds))
        if self.step % self.rhythm.check == 0:
            _checked(loss, self.step)
        nn.utils.clip_grad_norm_(self.task.model.parameters(), self.rhythm.clip, foreach=True)

        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.averages.update()

        return loss

    def _log(self, loss: float, seconds: float) -> None:
        self.smooth = loss if math.isnan(self.smooth) else 0.9 * self.smooth + 0.1 * loss
        rate = self.rhythm.log * self.batch / max(seconds, 1e-9)
        seen = self.step * self.batch
        self.report(
            f"step {self.step}  {seen:,} samples  {self.seconds / 3600:.2f} h  "
            f"loss {self.smooth:.4f}  {rate:.1f} samples/s  "
            f"lr {self.pace.rate_of(self.step, self.seconds):.1e}"
        )

    def save(self, loss: Tensor | None = None) -> None:
        """Write `state.pt` atomically. Raises FloatingPointError for a loss that is no number."""
        if loss is not None:
            _checked(loss, self.step)
        state = {
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages.state_dict(),
            "progress": {"step": self.step, "seconds": self.seconds, "smooth": self.smooth},
        }
        with atomic_write(self.folder / STATE) as temporary:
            torch.save(state, temporary)
        self.saved(self.step)

    def _restore(self) -> None:
        path = self.folder / STATE
        if not path.exists():
            return

        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.device)
        try:
            progress = state["progress"]
            self.task.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averages.load_state_dict(state["averages"], progress["step"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} is the state of another model; take another folder ({error})."
            ) from error

        self.step, self.seconds = progress["step"], progress["seconds"]
        self.smooth = progress["smooth"]
        self.report(f"going on at step {self.step}")


def _checked(loss: Tensor, step: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise FloatingPointError(f"The loss is {value} at step {step}; lower the learning rate.")

    return value
