"""Training a control: the hint gain, pictures, and what a checkpoint keeps of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from zeroconv.control import ControlNet
from zeroconv.data.batches import BatchPlan, mirror_of, mirrors_of
from zeroconv.data.cache.examples import Examples
from zeroconv.errors import UserError
from zeroconv.jsonfile import write_json
from zeroconv.optim.adamw8bit import recover_lows
from zeroconv.training.execution.protocol import Execution, Model
from zeroconv.training.export import averages_of, undivided, write_control
from zeroconv.training.loop import Loop
from zeroconv.training.measuring.convergence import Measured, detect
from zeroconv.training.measuring.read_back import read_back
from zeroconv.training.measuring.rounds import Rounds, in_one_line
from zeroconv.training.measuring.validation import Validator
from zeroconv.training.model import kinds_of
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.recipes.training import parse_action
from zeroconv.training.reporting.prompted import Prompted
from zeroconv.training.reporting.report import write_report
from zeroconv.training.reporting.reporter import Reporter
from zeroconv.training.reporting.samples import sample_grid
from zeroconv.training.summary import last_round, summary_of


class Trainer(Loop):
    """Trains the control of `model` on `data`, by an `execution` of it. Everything that changes is
    in `state()`.

    rounds: of pictures that are read back, for processes that validate.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        data: Examples,
        held_out: Examples,
        execution: Execution,
        show_line: Callable[[str], None] = print,
        rounds: Rounds | None = None,
        reporters: Sequence[Reporter] = (),
        prompts: Sequence[Prompted] = (),
    ) -> None:
        kinds = kinds_of(model.control, recipe.data.condition, {*(data.conditions or ()), None})
        held_kinds = {*(held_out.conditions or ()), None}
        readings = None if model.loss.reward is None else model.loss.reward.numbers
        plan = batch_plan(recipe, data, execution.rank, execution.processes, kinds, readings)
        super().__init__(recipe, data, plan, execution, show_line, reporters, prompts)
        self.backbone, self.modules = model.backbone, model.modules
        self.control: Any = model.control
        self.decoder = model.modules.get("decoder")
        self.held_out, self.rounds = held_out, rounds
        self.validator = Validator(
            self.loss,
            held_out,
            recipe.data.validation_count,
            2 * self.settings.batch_size,
            self.settings.seed,
            kinds_of(model.control, recipe.data.condition, held_kinds),
        )
        self.last: dict[str, float] | None = None  # of the newest validation
        self.best: dict[str, float] | None = None  # and of the one with the lowest loss
        self.kept: dict[str, float] | None = None  # and of the best that has a checkpoint
        self.converged: dict[str, float] | None = None  # when the hints began to be followed

    # ---------------------------------------------------------------- after convergence

    def learning_rate(self) -> float:
        """Lowered after convergence if the recipe says so."""
        lowered = self._action("lower_lr")
        return super().learning_rate() * (1.0 if lowered is None else lowered)

    @property
    def accumulation(self) -> int:
        return self.settings.accumulation * int(self._action("enlarge_batch") or 1)

    def _action(self, name: str) -> float | None:
        """The value of the recipe's action, once the hints are followed."""
        if self.converged is None or self.settings.on_convergence is None:
            return None
        action, value = parse_action(self.settings.on_convergence)
        return value if action == name else None

    def _ends_early(self) -> bool:
        steps = self._action("stop_after")
        return (
            steps is not None
            and self.converged is not None
            and self.step >= self.converged["seen"] + steps
        )

    # ---------------------------------------------------------------- what it says and keeps

    def _validate(self) -> None:
        if not self.settings.validate_every:
            return
        if self.runs_validation:
            self._measure()
        # what follows from it must be done by all alike
        self.converged = self.execution.broadcast(self.converged)

    def _measure(self) -> None:
        reward_of = self.loss.reward
        with self.execution.averaged():
            measured = self.validator.measure()
            distance = None if reward_of is None else read_back(self.validator, reward_of)
        self.last = {"step": self.step, **measured.as_dict()}
        reward = {} if distance is None else {"reward": round(distance, 6)}
        self.log.write(self.step, validation={**measured.as_dict(), **reward})
        self.show_line(
            f"step {self.step}/{self.settings.steps}  hint gain {measured.gain:+.4f} ± "
            f"{measured.gain_error:.4f}  (loss: true hint {measured.true:.4f}, another's "
            f"{measured.shuffled:.4f}, none {measured.none:.4f})"
            + ("" if distance is None else f"  held-out reward {distance:.4f}")
        )
        if not math.isfinite(measured.true):  # neither the best ever, nor a step to convergence
            return
        if self.best is None or measured.true < self.best["true"]:
            self.best = self.last
        self.history.append(self.last)
        if self.converged is not None:
            return
        change = detect([Measured.of(line) for line in self.history])
        if change is not None:
            self.converged = change.as_dict()
            self.log.write(self.step, event="converged", converged=self.converged)
            action = f"; {self.settings.on_convergence}" if self.settings.on_convergence else ""
            self.show_line(
                f"step {self.step}: the hints are followed since step {change.step} (gain "
                f"{change.gain:+.4f}, confidence {change.confidence:.4f}){action}"
            )

    def _sample(self) -> None:
        if not self._samples():
            return
        path = self._sheet_path()
        shown = path if self.execution.main else None
        with self.execution.averaged():
            self.control.eval()
            if self.prompts:
                self._prompted(shown, self.control)
            else:
                condition = self.recipe.data.condition
                settings, held_out = self.settings, self.held_out
                sample_grid(shown, self.backbone, self.control, held_out, settings, condition)
            self.control.train()
        self._tell_sheet(path)

    def _evaluate(self) -> None:
        if self.rounds is None:
            return
        with self.execution.averaged():
            if not self.execution.main:
                self.rounds.make(self.control)
                return
            figures, sheet = self.rounds.run(self.step, self.control)
        self.log.write(self.step, evaluation=figures)
        self.show_line(f"step {self.step}/{self.settings.steps}  {in_one_line(figures)}")
        self._show(sheet)

    # ---------------------------------------------------------------- state

    def _weights(self) -> dict[str, Any]:
        decoder = None if self.decoder is None else self.decoder.state_dict()
        return {"control": self.control.state_dict(), "decoder": decoder}

    def _load_weights(self, state: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state[name])

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "last": self.last,
            "best": self.best,
            "kept": self.kept,
            "converged": self.converged,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        recover_lows(
            self.optimizer, [(module, state[name]) for name, module in self.modules.items()]
        )
        self.last, self.best, self.kept = state["last"], state["best"], state["kept"]
        self.converged = state["converged"]

    def save(self) -> None:
        last = self.last
        fresh = last is not None and last["step"] == self.step and math.isfinite(last["true"])
        if fresh and (self.kept is None or last["true"] <= self.kept["true"]):  # type: ignore[index]
            self.kept = last
        super().save()

    def _kept_step(self) -> int | None:
        return None if self.kept is None else int(self.kept["step"])

    # ---------------------------------------------------------------- results

    def export(self, folder: Path, base: Path | None = None) -> None:
        """Save the averaged control as a diffusers folder; in `base` the base that its unlocked
        decoder made of the recipe's, if it has one.
        """
        # no process holds it undivided, so the main one takes it from the checkpoint
        if self.execution.collective:
            self._export_saved(self._saved(self.step), folder, base)
            return
        with self.execution.averaged():
            decoder = None if self.decoder is None else self.decoder.state_dict()
            write_control(self.recipe, self.control, decoder, folder, base)

    def _export_saved(self, state: dict[str, Any] | None, folder: Path, base: Path | None) -> None:
        """`export`, of a checkpoint."""
        if state is None:
            raise UserError(
                f"the checkpoint of step {self.step} is gone or damaged; go on with the run and "
                "try again."
            )
        weights = averages_of(state, self.modules)
        control = undivided(cast(ControlNet, self.control), weights["control"])
        write_control(self.recipe, control, weights.get("decoder"), folder, base)

    def export_best(self, folder: Path, base: Path | None = None) -> bool:
        """Save the averaged control of the checkpoint with the lowest validation loss, where that
        is not the last one. The trainer holds its state afterwards, unless processes hold parts.
        """
        if self.kept is None or self.kept["step"] == self.step:
            return False
        state = self._saved(int(self.kept["step"]))
        if state is None:
            return False
        if self.execution.collective:
            self._export_saved(state, folder, base)
        else:
            self._restore(state)
            self.export(folder, base)
        return True

    def finish(self, status: str) -> None:
        """Write the summary and the report, and of a finished run its results."""
        out = self.folder
        summary = {
            **summary_of(self, self.held_out, status),
            "validation": self.last,
            "evaluation": last_round(self.log.read()),
            "best": self.best,
            "converged": self.converged,
        }
        if status == "finished":
            self.export(out / "control", out / "base")
            summary["control"] = str(out / "control")
            if self.decoder is not None:
                summary["base"] = str(out / "base")
            # the last step's weights are usually as good; where they are not, both are there
            kept = self.kept
            if self.export_best(out / "best", out / "best-base"):
                summary["kept"] = {"control": str(out / "best"), **(kept or {})}

        write_json(out / "summary.json", summary)
        write_report(out)
        if status == "finished":
            self.show_line(f"finished: {out / 'control'}")


def batch_plan(
    recipe: Recipe,
    data: Examples,
    rank: int,
    world: int,
    kinds: Mapping[str | None, int] | None = None,
    readings: Mapping[str | None, int] | None = None,
) -> BatchPlan:
    settings = recipe.training
    return BatchPlan(
        data,
        settings.batch_size,
        seed=settings.seed,
        prompt_dropping=settings.prompt_dropping,
        hint_dropout=recipe.data.hint_dropout,
        flip=recipe.data.flip,
        mirror=mirror_of(recipe.data.condition),
        mirrors=mirrors_of(set(data.conditions or ())),
        kinds=kinds,
        readings=readings,
        rank=rank,
        world=world,
    )
