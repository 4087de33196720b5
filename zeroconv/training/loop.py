"""The loop that every training shares: steps, what a run says between them, what it does when a
loss is no number.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

from zeroconv.data.batches import Batch
from zeroconv.errors import UserError
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.reward.tally import in_words
from zeroconv.training.schedule import learning_rate
from zeroconv.training.sheets import Sheets
from zeroconv.training.stopping import StopSignals

# steps in a row whose loss is no number, before the run goes back to its last checkpoint
_PATIENCE = 5
_ROLLBACKS = 3  # of these, before it gives up
_NO_NUMBER = (
    "base, control.init or the pictures bring NaN or infinity, or the precision is too small for "
    "them; try training.precision fp32, a lower training.learning_rate, or other weights."
)


class Loop(Sheets):
    """Drives a trainer: a subclass measures, draws and exports; an execution makes the steps.

    Batches and noise are functions of (seed, step), see `BatchPlan`: a run that is killed and goes
    on from a checkpoint makes the very same steps, on a CPU bit for bit.
    """

    # ---------------------------------------------------------------- a trainer's own

    def _gradients(self, micro: list[Batch]) -> float:
        """Accumulate the gradients of a step's micro-batches; returns the mean loss."""
        return self.execution.gradients(micro, self.step)

    def _validate(self) -> None:
        raise NotImplementedError

    def _sample(self) -> None:
        raise NotImplementedError

    def _evaluate(self) -> None:
        """Every `evaluate_every` steps, before the first one and after the last; nothing where
        there is nothing to read back.
        """

    def finish(self, status: str) -> None:
        """What is left in the folder of a run that is "finished" or "interrupted"."""
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

    # ---------------------------------------------------------------- the loop

    def run(self) -> str:
        """Train to the end; returns "finished", or "interrupted" after SIGTERM or Ctrl-C (the state
        is saved).
        """
        for reporter in self.reporters:
            reporter.start(self.step, self.log.read())
        self.meter.start()
        began = time.monotonic() - self.seconds
        with StopSignals() as stop:
            if self.step == 0:
                self._validate()
                self._evaluate()
            # a run that ended before its last step, given the same command again, has
            # nothing left to do
            over = self.step > 0 and any(self.execution.agreed(self._over(), self._ends_early()))
            if not over and self._make_steps(stop, began):
                return "interrupted"
        self._sample()
        return "finished"

    def _make_steps(self, stop: StopSignals, began: float) -> bool:
        """All that are left; returns whether a signal came before the last of them. `began`: the
        clock's time at which the run would have begun without a stop.
        """
        batches: Any = self.plan.from_step(self.micro)
        try:
            while self.step < self.settings.steps:
                waited = time.monotonic()
                micro = list(itertools.islice(batches, self.accumulation))
                waited = time.monotonic() - waited

                loss, norm = self._train_step(micro)
                broken = self.skipped >= _PATIENCE
                if not broken:
                    self.step += 1
                    self.micro += len(micro)
                    self.seconds = time.monotonic() - began
                    self.meter.add(loss, waited, len(micro))
                    asked, over, broken = self._stopping(stop.asked)
                if broken:
                    batches.close()
                    self._roll_back(loss)
                    batches = self.plan.from_step(self.micro)
                    continue

                last = over or self.step == self.settings.steps or self._ends_early()
                self._between_steps(norm, last, asked)
                if last:
                    return False
                if asked:
                    self.stopped_by = stop.number
                    return True
        finally:
            batches.close()
        return False

    def _between_steps(self, norm: float, last: bool, asked: bool) -> None:
        """What a run says, measures and keeps after a step, whose gradient had this norm."""
        settings = self.settings
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

    def _train_step(self, micro: list[Batch]) -> tuple[float, float]:
        """One step of the optimiser; returns the mean loss and the norm of its gradient. A loss
        that is no number leaves the weights as they are.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate() * group.get("lr_scale", 1.0)
        loss, scaler = self._gradients(micro), self.execution.scaler
        norm = self.execution.clip(self.settings.clip)
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
            self.ema.update()
            self.skipped = 0
            self.sound += 1
        elif scaler is not None and math.isfinite(loss) and scaler.get_scale() > 1:
            # the scale was too large
            self.log.write(self.step, event="overflow", scale=scaler.get_scale())
        else:
            self._skip(loss)
        if scaler is not None:
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        if self.skipped == 1:
            self.show_line(
                f"step {self.step + 1}: the loss is no number; this step changes nothing"
            )
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
        return self.execution.agreed(asked, over, broken)

    def _check_learned(self) -> None:
        """Raises UserError at the end of a run in which no step changed anything."""
        if not self.skipped:
            return
        first, last = self.step - self.skipped + 1, self.step
        if not self.sound:
            raise UserError(f"the loss is no number in steps {first} to {last}: {_NO_NUMBER}")
        self.show_line(f"the loss was no number in steps {first} to {last}, which changed nothing")

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
        self.show_line(
            f"step {where}: the loss is no number; back to step {self.step} at half the learning "
            "rate"
        )

    def _report(self, norm: float) -> None:
        figures = {
            **self.meter.figures(),
            **self._reward_figures(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient": round(norm, 4),
        }
        self.log.write(self.step, seconds=round(self.seconds, 1), **figures)
        left = (self.settings.steps - self.step) * self.seconds / max(1, self.step)
        if self.settings.max_minutes is not None:
            left = min(left, 60 * self.settings.max_minutes - self.seconds)
        loss = f"{figures['loss']:.4f}" if math.isfinite(figures["loss"]) else "is no number"
        self.show_line(
            f"step {self.step}/{self.settings.steps}  loss {loss}  {in_words(figures)}"
            f"{figures['samples_per_second']:.1f} samples/s  {max(0.0, left) / 60:.1f} min left"
        )
