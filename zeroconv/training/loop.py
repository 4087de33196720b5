"""The loop that every training shares: steps, what a run says between them, what it does when a
loss is no number.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from zeroconv.data.batches import Batch, BatchPlan
from zeroconv.errors import UserError
from zeroconv.optim.adamw8bit import AdamW8bit
from zeroconv.optim.ema import Ema
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.recipes.recipe import TrainingSettings
from zeroconv.training.reporting.log import Meter, RunLog
from zeroconv.training.stopping import StopSignals

# steps in a row whose loss is no number, before the run goes back to its last checkpoint
_PATIENCE = 5
_ROLLBACKS = 3  # of these, before it gives up
_NO_NUMBER = (
    "base, control.init or the pictures bring NaN or infinity, or the precision is too small for "
    "them; try training.precision fp32, a lower training.learning_rate, or other weights."
)


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then the schedule; a function of the step alone. The curves are diffusers' of
    the same names.
    """
    warm = min(1.0, (step + 1) / (settings.warmup + 1))
    if settings.schedule == "constant":
        return settings.learning_rate * warm
    progress = min(1.0, max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup))
    if settings.schedule == "cosine":
        left = (
            0.5 * (1 + math.cos(math.pi * (progress * settings.cycles % 1)))
            if progress < 1
            else 0.0
        )
    else:
        left = (1 - progress) ** (settings.power if settings.schedule == "polynomial" else 1)
    return settings.learning_rate * warm * left


class Loop:
    """Drives a trainer: a subclass makes the steps (`_gradients`), measures, draws, saves and
    resumes.

    Batches and noise are functions of (seed, step), see `BatchPlan`: a run that is killed and goes
    on from a checkpoint makes the very same steps, on a CPU bit for bit.
    """

    settings: TrainingSettings
    folder: Path
    say: Callable[[str], None]
    first_plan: BatchPlan  # before any return to a checkpoint
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Ema
    log: RunLog
    meter: Meter

    def __init__(self) -> None:
        # steps done; of them in a row not finite; time of training
        self.step, self.skipped, self.seconds = 0, 0, 0.0
        self.micro = 0  # micro-batches taken, the place in the data
        self.rollbacks = 0
        self.sound = 0  # steps with a loss, in this process
        self.stopped_by = 0  # the signal that interrupted `run`
        self.scaler: torch.amp.GradScaler | None = (
            None  # of float16, see `zeroconv.training.execution.precision.loss_scale`
        )

    # ---------------------------------------------------------------- a trainer's own

    def _gradients(self, micro: list[Batch]) -> float:
        """Accumulate the gradients of a step's micro-batches; returns the mean loss."""
        raise NotImplementedError

    def _validate(self) -> None:
        raise NotImplementedError

    def _sample(self) -> None:
        raise NotImplementedError

    def _evaluate(self) -> None:
        """Every `evaluate_every` steps, before the first one and after the last; nothing where
        there is nothing to read back.
        """

    def save(self) -> None:
        raise NotImplementedError

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of the run's folder; False where there is none."""
        raise NotImplementedError

    @property
    def accumulation(self) -> int:
        return self.settings.accumulation

    def learning_rate(self) -> float:
        """The schedule's, halved by every return to a checkpoint."""
        return learning_rate(self.step, self.settings) * 0.5**self.rollbacks

    def _ends_early(self) -> bool:
        return False

    def _over(self) -> bool:
        """Whether the time that the recipe gives is used up."""
        return (
            self.settings.max_minutes is not None and self.seconds > 60 * self.settings.max_minutes
        )

    def _agreed(self, *wishes: bool) -> list[bool]:
        """Each wish, if any process of the run has it: they must stop at the same step, or one
        waits for ever.
        """
        return list(wishes)

    # ---------------------------------------------------------------- the loop

    @property
    def plan(self) -> BatchPlan:
        """The batches of this run; after a return to a checkpoint, in another order."""
        return replace(self.first_plan, seed=self.first_plan.seed + 7919 * self.rollbacks)

    def run(self) -> str:
        """Train to the end; returns "finished", or "interrupted" after SIGTERM or Ctrl-C (the state
        is saved).
        """
        settings, meter = self.settings, self.meter
        meter.start()
        began = time.monotonic() - self.seconds
        batches = self.plan.from_step(self.micro)
        with StopSignals() as stop:
            if self.step == 0:
                self._validate()
                self._evaluate()
            # a run that ended before its last step, given the same command again, has
            # nothing left to do
            done = self.step > 0 and any(self._agreed(self._over(), self._ends_early()))
            while self.step < settings.steps and not done:
                waited = time.monotonic()
                micro = list(itertools.islice(batches, self.accumulation))
                waited = time.monotonic() - waited
                loss, norm = self._train_step(micro)
                if self.skipped >= _PATIENCE:
                    batches.close()  # type: ignore[attr-defined]
                    self._roll_back(loss)
                    batches = self.plan.from_step(self.micro)
                    continue
                self.step += 1
                self.micro += len(micro)
                self.seconds = time.monotonic() - began
                meter.add(loss, waited, len(micro))
                asked, over, broken = self._stopping(stop.asked)
                last = over or self.step == settings.steps or self._ends_early()
                if broken:
                    batches.close()  # type: ignore[attr-defined]
                    self._roll_back(loss)
                    batches = self.plan.from_step(self.micro)
                    continue
                if last:
                    self._check_learned()
                if self.step % settings.log_every == 0 or last:
                    self._report(norm)
                if settings.validate_every and (self.step % settings.validate_every == 0 or last):
                    self._validate()
                if settings.evaluate_every and (self.step % settings.evaluate_every == 0 or last):
                    self._evaluate()
                if settings.sample_every and self.step % settings.sample_every == 0 and not last:
                    self._sample()
                if asked or last or self.step % settings.checkpoint_every == 0:
                    self.save()
                if last:
                    break
                if asked:
                    batches.close()  # type: ignore[attr-defined]
                    self.stopped_by = stop.number
                    return "interrupted"
        batches.close()  # type: ignore[attr-defined]
        self._sample()
        return "finished"

    def _train_step(self, micro: list[Batch]) -> tuple[float, float]:
        """One step of the optimiser; returns the mean loss and the norm of its gradient. A loss
        that is no number leaves the weights as they are.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate() * group.get("lr_scale", 1.0)
        loss = self._gradients(micro)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
            self.ema.update()
            self.skipped = 0
            self.sound += 1
        elif self.scaler is not None and math.isfinite(loss) and self.scaler.get_scale() > 1:
            # the scale was too large
            self.log.write(self.step, event="overflow", scale=self.scaler.get_scale())
        else:
            self._skip(loss)
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def _scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What is differentiated: the loss, times float16's scale."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _clip(self) -> float:
        """Bounds the norm of the gradient; returns what it was."""
        if isinstance(self.optimizer, AdamW8bit):  # clips while it updates
            return self.optimizer.clip(self.settings.clip)
        return float(
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip, foreach=True)
        )

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        if self.skipped == 1:
            self.say(f"step {self.step + 1}: the loss is no number; this step changes nothing")
        self.log.write(self.step, event="skipped", loss=str(loss))

    def _stopping(self, asked: bool) -> list[bool]:
        """Whether a signal asks to stop, the time is over, and weights are no numbers any more.

        Weights that are none though the loss was one are neither saved nor exported. They are
        looked at before a checkpoint only, as reading all of them takes time.
        """
        settings, over = self.settings, self._over()
        due = self.step % settings.checkpoint_every == 0 or self.step == settings.steps
        broken = (due or asked or over) and not all(
            bool(p.detach().isfinite().all()) for p in self.parameters
        )
        return self._agreed(asked, over, broken)

    def _check_learned(self) -> None:
        """Raises UserError at the end of a run in which no step changed anything."""
        if not self.skipped:
            return
        first, last = self.step - self.skipped + 1, self.step
        if not self.sound:
            raise UserError(f"the loss is no number in steps {first} to {last}: {_NO_NUMBER}")
        self.say(f"the loss was no number in steps {first} to {last}, which changed nothing")

    def _roll_back(self, loss: float) -> None:
        """Several losses in a row were no number, or weights are none: back to the last checkpoint,
        on other batches, at half the rate.
        """
        tried = self.rollbacks + 1
        where, skipped = self.step, self.skipped
        if not self.sound and where <= skipped:
            raise UserError(
                f"the loss is no number for {skipped} steps from step 1 on: {_NO_NUMBER}"
            )
        if tried > _ROLLBACKS or not checkpoints(self.folder / "checkpoints") or not self.resume():
            raise UserError(
                f"the loss has been no number for {max(1, skipped)} steps, at step {where}, and "
                f"after {tried - 1} returns to a checkpoint; lower training.learning_rate or raise "
                "training.warmup, in another out folder."
            )
        self.rollbacks, self.skipped = tried, 0
        self.log.write(
            self.step, event="rolled back", to=self.step, rollbacks=tried, loss=str(loss)
        )
        self.say(
            f"step {where}: the loss is no number; back to step {self.step} at half the learning "
            "rate"
        )

    def _report(self, norm: float) -> None:
        figures = {
            **self.meter.figures(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient": round(norm, 4),
        }
        self.log.write(self.step, seconds=round(self.seconds, 1), **figures)
        left = (self.settings.steps - self.step) * self.seconds / max(1, self.step)
        if self.settings.max_minutes is not None:
            left = min(left, 60 * self.settings.max_minutes - self.seconds)
        loss = f"{figures['loss']:.4f}" if math.isfinite(figures["loss"]) else "is no number"
        self.say(
            f"step {self.step}/{self.settings.steps}  loss {loss}  "
            f"{figures['samples_per_second']:.1f} samples/s  {max(0.0, left) / 60:.1f} min left"
        )
