"""A run on its way: everything that a step changes, saved and read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from zeroconv.data.batches import BatchPlan
from zeroconv.data.cache.examples import Examples
from zeroconv.optim.ema import Ema
from zeroconv.optim.layout import lay_out_
from zeroconv.training.checkpoint import (
    data_fingerprint,
    fitting,
    load_checkpoint,
    resume_warnings,
    save_checkpoint,
)
from zeroconv.training.execution.protocol import Execution
from zeroconv.training.recipes.recipe import AnyRecipe
from zeroconv.training.reporting.log import Meter, RunLog
from zeroconv.training.reporting.prompted import Prompted
from zeroconv.training.reporting.reporter import Reporter


class RunState:
    """What a run has come to. Everything that changes is in `state()`.

    show_line: takes one line of progress at a time. reporters: hear of lines of the log, sheets of
    pictures and checkpoints, on the main process.
    """

    def __init__(
        self,
        recipe: AnyRecipe,
        data: Examples,
        plan: BatchPlan,
        execution: Execution,
        show_line: Callable[[str], None] = print,
        reporters: Sequence[Reporter] = (),
        prompts: Sequence[Prompted] = (),
    ) -> None:
        self.recipe: Any = recipe
        self.settings, self.folder, self.show_line = recipe.training, Path(recipe.out), show_line
        self.data, self.execution, self.loss = data, execution, execution.loss
        self.prompts = prompts  # of training.validation
        self.first_plan = plan  # before any return to a checkpoint
        self.reporters = list(reporters) if execution.main else []
        self.log = RunLog(self.folder / "log.jsonl", execution.main, self.reporters)
        self.meter = Meter(self.settings.batch_size * plan.world)
        # with parts of the weights all must
        self.runs_validation = execution.main or execution.collective
        self.history: list[dict[str, float]] = []  # what every validation measured

        # steps done; of them in a row not finite; time of training
        self.step, self.skipped, self.seconds = 0, 0, 0.0
        self.micro = 0  # micro-batches taken, the position in the data
        self.rollbacks = 0
        self.sound = 0  # steps with a loss, in this process
        self.stopped_by = 0  # the signal that interrupted `run`

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return self.execution.parameters

    @property
    def optimizer(self) -> Any:
        return self.execution.optimizer

    @property
    def ema(self) -> Ema:
        return self.execution.ema

    def _reward_figures(self) -> dict[str, float]:
        """The ordinary loss and the reward apart; nothing for a run without a reward."""
        return {} if self.loss.reward is None else self.loss.reward.tally.figures()

    def _weights(self) -> dict[str, Any]:
        """What trains, as a checkpoint keeps it."""
        raise NotImplementedError

    def _load_weights(self, state: dict[str, Any]) -> None:
        """The opposite, from a state that this process may load."""
        raise NotImplementedError

    # ---------------------------------------------------------------- saving and reading back

    @property
    def plan(self) -> BatchPlan:
        """The batches of this run; after a return to a checkpoint, in another order."""
        return replace(self.first_plan, seed=self.first_plan.seed + 7919 * self.rollbacks)

    def state(self) -> dict[str, Any]:
        scaler = self.execution.scaler
        return {
            **self._weights(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "drawn_from": self._fingerprint(),
            # with the step, this is the position in the data and in the noise
            "seed": self.settings.seed,
            "micro": self.micro,
            "rollbacks": self.rollbacks,
            "skipped": self.skipped,
            "seconds": self.seconds,
            # of the steps since the last line of the log
            "losses": [self.meter.losses, self.meter.count],
            "reward": None if self.loss.reward is None else self.loss.reward.tally.sums,
            "history": self.history,
        }

    def save(self) -> None:
        """Write a checkpoint; all processes call it together."""
        state = self.execution.gather(self.state())
        if self.execution.main:
            folder, keep = self.folder / "checkpoints", self.settings.keep
            save_checkpoint(folder, self.step, state, keep, self._kept_step())
            for reporter in self.reporters:
                reporter.saved(self.folder)
        self.execution.wait()

    def _kept_step(self) -> int | None:
        """The step whose checkpoint is kept, whatever comes later."""
        return None

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of the run's folder; False where there is none."""
        state = self._saved()
        if state is None:
            self.log.cut(0)
            return False
        for line in resume_warnings(state.get("drawn_from"), self._fingerprint()):
            self.show_line(line)
        with fitting(self.folder / "checkpoints"):
            self._restore(state)
        self.log.cut(self.step)
        return True

    def _saved(self, step: int | None = None) -> dict[str, Any] | None:
        folder, execution = self.folder / "checkpoints", self.execution
        return load_checkpoint(folder, execution.device, step, mapped=execution.collective)

    def _restore(self, state: dict[str, Any]) -> None:
        state = self.execution.scatter(state)
        self._load_weights(state)
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        lay_out_(self.optimizer)
        if self.execution.scaler is not None:
            self.execution.scaler.load_state_dict(state["scaler"])
        self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.micro, self.rollbacks = state["micro"], state["rollbacks"]
        self.meter.losses, self.meter.count = state["losses"]
        if self.loss.reward is not None:
            self.loss.reward.tally.sums = list(state["reward"])
        self.history = state["history"]

    def _fingerprint(self) -> dict[str, Any]:
        return data_fingerprint(self.data, self.plan.world)
