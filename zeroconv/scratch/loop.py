"""One training loop for every base: resumable bit for bit, stoppable at any time, open in length.

A step is a function of the weights, the optimiser and (seed, step), so the state holds no place in
the data and no random generator. SIGTERM and Ctrl-C end the run after the current step with
everything saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.optim.muon import muon_groups
from zeroconv.scratch.averages import Averages
from zeroconv.scratch.corpus import Batch, Corpus, Journal, Mixture, Writer
from zeroconv.scratch.muon import Muon
from zeroconv.scratch.plan import Plan
from zeroconv.training.stopping import StopSignals


class Task(Protocol):
    """What a base brings along: its model, how captions become tokens, and its loss."""

    model: nn.Module
    writers: list[Writer]

    def draw(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, ...]:
        """Everything random of a step, as tensors that `loss` takes."""
        ...

    def loss(self, *drawn: Tensor) -> Tensor:
        """Mean loss, differentiable; a function of the weights and its arguments."""
        ...


@dataclass
class Rhythm:
    """How often what is written."""

    save: float = 240.0  # seconds between two states
    averages: float = 900.0  # seconds between two files of averaged weights
    log: int = 20  # steps
    look: int = 200  # steps between two looks for new shards
    clip: float = 1.0  # gradient norm


@dataclass
class Run:
    """A training in a folder: `state.pt`, `shards.json`, `plan.json`, `average-*.safetensors`."""

    task: Task
    plan: Plan
    folder: Path
    shards: Path
    mixture: Mixture
    rhythm: Rhythm = field(default_factory=Rhythm)
    device: str = "cpu"
    report: Callable[[str], None] = lambda line: print(line, flush=True)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.optimizer = Muon(muon_groups([self.task.model]), lr=self.plan.rate)
        self.averages = Averages(self.task.model)
        self.journal = Journal(self.folder / "shards.json", self.shards)
        self.step, self.seconds, self.smooth = 0, 0.0, math.nan
        self.corpus: Corpus | None = None
        self._restore()

    def go(self, steps: int | None = None) -> int:
        """Train until the plan's end, a signal, or for `steps`; returns the step reached.

        Raises FloatingPointError where the loss is no number; the state saved last stays.
        """
        last = 1 << 62 if self.plan.end is None else self.plan.end
        if steps is not None:
            last = min(last, self.step + steps)
        begun = saved = averaged = logged = time.monotonic()
        before = self.seconds

        with StopSignals() as signals:
            while self.step < last and not signals.asked:
                loss = self._one_step()
                now = time.monotonic()
                self.seconds = before + now - begun

                if self.step % self.rhythm.log == 0:
                    self._log(loss, now - logged)
                    logged = now
                if now - saved > self.rhythm.save:
                    self.save()
                    saved = time.monotonic()
                if now - averaged > self.rhythm.averages:
                    self.averages.save(self.folder, self.step)
                    averaged = time.monotonic()

        self.save()
        self.averages.save(self.folder, self.step)
        return self.step

    def _one_step(self) -> float:
        """Train on one batch; nothing has changed where its loss is no number."""
        corpus = self._corpus()
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate_of(self.step)

        batch = corpus.batch(self.step, self.plan.side(self.step))
        drawn = self.task.draw(batch, self.plan.seed, self.step)
        loss = self.task.loss(*drawn)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The loss is {value} at step {self.step}; lower the learning rate."
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.task.model.parameters(), self.rhythm.clip, foreach=True)

        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.averages.update(self.step)

        return value

    def _corpus(self) -> Corpus:
        """The pictures of the current step: another size is read anew, further shards are added."""
        side = self.plan.side(self.step)

        if self.step % self.rhythm.look == 0:
            self.journal.look(self.step)
        if self.corpus is None or self.corpus.sides != (side,):
            self.corpus = Corpus(self.shards, [side], self.task.writers, self.mixture, self.device)
        names = self.journal.names(self.step)
        if len(names) > len(self.corpus.names):
            self.corpus.add(names)
            self.report(f"step {self.step}: {len(self.corpus):,} pictures at {side} px")

        return self.corpus

    def _log(self, loss: float, seconds: float) -> None:
        self.smooth = loss if math.isnan(self.smooth) else 0.9 * self.smooth + 0.1 * loss
        rate = self.rhythm.log * self.mixture.batch / max(seconds, 1e-9)
        seen = self.step * self.mixture.batch
        self.report(
            f"step {self.step}  {seen:,} samples  {self.seconds / 3600:.2f} h  "
            f"loss {self.smooth:.4f}  {rate:.1f} samples/s  lr {self.plan.rate_of(self.step):.1e}"
        )

    def save(self) -> None:
        """Write `state.pt` atomically."""
        state = {
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages.state_dict(),
            "progress": {"step": self.step, "seconds": self.seconds, "smooth": self.smooth},
        }
        with atomic_write(self.folder / "state.pt") as temporary:
            torch.save(state, temporary)

    def _restore(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return

        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.device)
        try:
            self.task.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averages.load_state_dict(state["averages"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} is the state of another model; take another folder ({error})."
            ) from error
        progress = state["progress"]
        self.step, self.seconds, self.smooth = (
            progress["step"],
            progress["seconds"],
            progress["smooth"],
        )
        self.report(f"going on at step {self.step}")
