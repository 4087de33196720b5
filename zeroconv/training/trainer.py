"""The loop: batch, loss, step, average; now and then a checkpoint, a measure of the hint gain, pictures."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import nn

from zeroconv.backbones import UNetBackbone
from zeroconv.conditions import CONDITIONS
from zeroconv.control import ControlNet
from zeroconv.data.batches import Batch, BatchPlan
from zeroconv.data.examples import Examples
from zeroconv.errors import UserError
from zeroconv.training.convergence import Measured, detect
from zeroconv.training.ema import Ema
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.optim import Muon, muon_groups
from zeroconv.training.recipe import Recipe, TrainingSettings, parse_action
from zeroconv.training.runlog import Meter, RunLog
from zeroconv.training.samples import sample_grid
from zeroconv.training.state import checkpoints, load_checkpoint, save_checkpoint
from zeroconv.training.stopping import StopSignals
from zeroconv.training.validation import Validator

_PATIENCE = 5  # steps in a row whose loss is no number, before the run goes back to its last checkpoint
_ROLLBACKS = 3  # of these, before it gives up


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then constant or half a cosine down to zero; a function of the step alone."""
    warm = min(1.0, (step + 1) / (settings.warmup + 1))
    if settings.schedule == "constant":
        return settings.learning_rate * warm
    progress = max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Trainer:
    """Trains `control` on `data` around a frozen `backbone`. Everything that changes is in `state()`.

    Batches and noise are functions of (seed, step), see `BatchPlan` and `stream`: a run that is killed and goes on from
    a checkpoint makes the very same steps, on a CPU bit for bit.
    """

    def __init__(
        self,
        recipe: Recipe,
        backbone: UNetBackbone,
        control: ControlNet,
        data: Examples,
        held_out: Examples,
        accelerator: Any,
        say: Callable[[str], None] = print,
    ) -> None:
        self.recipe, self.settings, self.say = recipe, recipe.training, say
        self.folder, self.accelerator = Path(recipe.out), accelerator
        self.backbone, self.control, self.held_out = backbone, control, held_out
        bf16 = self.settings.precision == "bf16"
        to_train_(control, recipe.control.frozen_copy)
        control.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        backbone.unet.to(memory_format=torch.channels_last)
        if bf16:  # frozen weights need no float32 masters; autocast would cast them anew in every pass
            nn.Module.to(backbone.unet, dtype=torch.bfloat16)
        self.parameters = [p for p in control.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(control, self.settings)
        self.ema = Ema(self.parameters, self.settings.ema_decay)
        self.loss = ControlledLoss(
            backbone,
            control,
            torch.bfloat16 if bf16 else None,
            self.settings.timesteps,
            self.settings.min_snr,
            self.settings.offset_noise,
        )
        self.wrapped = accelerator.prepare_model(self.loss)  # DistributedDataParallel where there are several processes
        self.data = data
        self.plan = batch_plan(recipe, data, accelerator.process_index, accelerator.num_processes)
        self.validator = Validator(
            self.loss, held_out, recipe.data.validation_count, 2 * self.settings.batch_size, self.settings.seed
        )
        self.log = RunLog(self.folder / "log.jsonl", active=accelerator.is_main_process)
        self.meter = Meter(self.settings.batch_size * self.settings.accumulation * self.plan.world)
        self.step, self.skipped, self.seconds = 0, 0, 0.0  # steps done; of them in a row not finite; time of training
        self.last: dict[str, float] | None = None  # of the newest validation
        self.best: dict[str, float] | None = None  # and of the one with the lowest loss
        self.kept: dict[str, float] | None = None  # and of the best that has a checkpoint
        self.history: list[dict[str, float]] = []  # what every validation measured
        self.converged: dict[str, float] | None = None  # when the hints began to be followed
        self.micro = 0  # micro-batches taken, the place in the data
        self.show: Callable[[int, Path], None] = lambda step, sheet: None  # hears of every sheet of pictures
        self.rollbacks = 0

    # ---------------------------------------------------------------- the loop

    def run(self) -> str:
        """Train to the end; returns "finished", or "interrupted" after SIGTERM or Ctrl-C (the state is saved)."""
        settings, meter = self.settings, self.meter
        meter.start()
        self.control.train()
        began = time.monotonic() - self.seconds
        batches = self.plan.from_step(self.micro)
        with StopSignals() as stop:
            if self.step == 0:
                self._validate()
            while self.step < settings.steps:
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
                meter.add(loss, waited)
                over = settings.max_minutes is not None and self.seconds > 60 * settings.max_minutes
                last = over or self.step == settings.steps or self._stops_after_convergence()
                if self.step % settings.log_every == 0 or last:
                    self._report(norm)
                if settings.validate_every and (self.step % settings.validate_every == 0 or last):
                    self._validate()
                if settings.sample_every and self.step % settings.sample_every == 0 and not last:
                    self._sample()
                if stop.asked or last or self.step % settings.checkpoint_every == 0:
                    self.save()
                if last:
                    break
                if stop.asked:
                    batches.close()  # type: ignore[attr-defined]
                    return "interrupted"
        batches.close()  # type: ignore[attr-defined]
        self._sample()
        return "finished"

    def _train_step(self, micro: Iterable[Batch]) -> tuple[float, float]:
        """One step of the optimiser; returns the mean loss and the norm of its gradient. A loss that is no number
        leaves the weights as they are."""
        settings, accelerator = self.settings, self.accelerator
        micro, total = list(micro), 0.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        for number, batch in enumerate(micro):
            generator = stream(accelerator.device, settings.seed, 4, self.step, number, accelerator.process_index)
            quiet = number + 1 < len(micro) and self.plan.world > 1
            with self.wrapped.no_sync() if quiet else nullcontext():
                loss = self.wrapped(batch.to(accelerator.device), generator) / len(micro)
                accelerator.backward(loss)
            total += loss.detach()
        mean = float(accelerator.reduce(torch.as_tensor(total), "mean"))
        norm = float(nn.utils.clip_grad_norm_(self.parameters, settings.clip, foreach=True))
        if math.isfinite(mean) and math.isfinite(norm):
            self.optimizer.step()
            self.ema.update()
            self.skipped = 0
        else:
            self._skip(mean)
        self.optimizer.zero_grad(set_to_none=True)
        return mean, norm

    def learning_rate(self) -> float:
        """The schedule's, halved by every return to a checkpoint, lowered after convergence if the recipe says so."""
        lowered = self._action("lower_lr")
        return learning_rate(self.step, self.settings) * 0.5**self.rollbacks * (1.0 if lowered is None else lowered)

    @property
    def accumulation(self) -> int:
        return self.settings.accumulation * int(self._action("enlarge_batch") or 1)

    def _action(self, name: str) -> float | None:
        """The value of the recipe's action, once the hints are followed."""
        if self.converged is None or self.settings.on_convergence is None:
            return None
        action, value = parse_action(self.settings.on_convergence)
        return value if action == name else None

    def _stops_after_convergence(self) -> bool:
        steps = self._action("stop_after")
        return steps is not None and self.converged is not None and self.step >= self.converged["seen"] + steps

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        self.log.write(self.step, event="skipped", loss=str(loss))

    def _roll_back(self, loss: float) -> None:
        """Several losses in a row were no number: back to the last checkpoint, on other batches, at half the rate."""
        tried = self.rollbacks + 1
        where = self.step
        if tried > _ROLLBACKS or not checkpoints(self.folder / "checkpoints") or not self.resume():
            raise UserError(
                f"the loss has been no number for {_PATIENCE} steps, at step {where}, and after {tried - 1} returns to "
                "a checkpoint; lower training.learning_rate or raise training.warmup, in another out folder."
            )
        self.rollbacks, self.skipped = tried, 0
        self.plan = self._plan()
        self.log.write(self.step, event="rolled back", to=self.step, rollbacks=tried, loss=str(loss))
        self._say_now(f"step {where}: the loss is no number; back to step {self.step} at half the learning rate")

    def _plan(self) -> BatchPlan:
        """The batches of this run; after a return to a checkpoint, in another order."""
        place = self.accelerator.process_index, self.accelerator.num_processes
        plan = batch_plan(self.recipe, self.data, *place)
        return replace(plan, seed=plan.seed + 7919 * self.rollbacks)

    # ---------------------------------------------------------------- what it says and keeps

    def _report(self, norm: float) -> None:
        figures = {**self.meter.figures(), "lr": self.optimizer.param_groups[0]["lr"], "gradient": round(norm, 4)}
        self.log.write(self.step, seconds=round(self.seconds, 1), **figures)
        left = (self.settings.steps - self.step) * self.seconds / max(1, self.step)
        if self.settings.max_minutes is not None:
            left = min(left, 60 * self.settings.max_minutes - self.seconds)
        self._say_now(
            f"step {self.step}/{self.settings.steps}  loss {figures['loss']:.4f}  "
            f"{figures['samples_per_second']:.1f} samples/s  {max(0.0, left) / 60:.1f} min left"
        )

    def _validate(self) -> None:
        if not self.settings.validate_every:
            return
        if self.accelerator.is_main_process:
            self._measure()
        if self.plan.world > 1:  # what follows from it must be done by all alike
            shared = [self.converged]
            broadcast_object_list(shared)
            self.converged = shared[0]

    def _measure(self) -> None:
        with self.ema.swapped():
            measured = self.validator.measure()
        self.last = {"step": self.step, **measured.as_dict()}
        self.log.write(self.step, validation=measured.as_dict())
        self._say_now(
            f"step {self.step}/{self.settings.steps}  hint gain {measured.gain:+.4f} ± {measured.gain_error:.4f}  "
            f"(loss: true hint {measured.true:.4f}, another's {measured.shuffled:.4f}, none {measured.none:.4f})"
        )
        if self.best is None or measured.true < self.best["true"]:
            self.best = self.last
        self.history.append(self.last)
        if self.converged is None and (found := detect([as_measured(line) for line in self.history])):
            self.converged = found.as_dict()
            self.log.write(self.step, event="converged", converged=self.converged)
            action = f"; {self.settings.on_convergence}" if self.settings.on_convergence else ""
            self._say_now(
                f"step {self.step}: the hints are followed since step {found.step} (gain {found.gain:+.4f}, "
                f"confidence {found.confidence:.4f}){action}"
            )

    def _sample(self) -> None:
        if not self.settings.sample_count or not self.accelerator.is_main_process:
            return
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
        with self.ema.swapped():
            self.control.eval()
            sample_grid(path, self.backbone, self.control, self.held_out, self.settings)
            self.control.train()
        self._say_now(f"step {self.step}/{self.settings.steps}  pictures: {path}")
        self.show(self.step, path)

    def _say_now(self, line: str) -> None:
        if self.accelerator.is_main_process:
            self.say(line)

    # ---------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        return {
            "control": self.control.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "seed": self.settings.seed,  # with the step, this is the place in the data and in the noise
            "skipped": self.skipped,
            "seconds": self.seconds,
            "losses": [self.meter.losses, self.meter.count],  # of the steps since the last line of the log
            "last": self.last,
            "best": self.best,
            "kept": self.kept,
            "history": self.history,
            "converged": self.converged,
            "micro": self.micro,
            "rollbacks": self.rollbacks,
        }

    def save(self) -> None:
        if self.accelerator.is_main_process:
            fresh = self.last is not None and self.last["step"] == self.step
            if fresh and (self.kept is None or self.last["true"] <= self.kept["true"]):  # type: ignore[index]
                self.kept = self.last
            best = None if self.kept is None else int(self.kept["step"])
            save_checkpoint(self.folder / "checkpoints", self.step, self.state(), self.settings.keep, best)
        self.accelerator.wait_for_everyone()

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of the run's folder; False where there is none."""
        state = load_checkpoint(self.folder / "checkpoints", self.accelerator.device)
        if state is None:
            self.log.cut(0)
            return False
        self._restore(state)
        self.log.cut(self.step)
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        self.control.load_state_dict(state["control"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.meter.losses, self.meter.count = state["losses"]
        self.last, self.best, self.kept = state["last"], state["best"], state["kept"]
        self.history, self.converged = state["history"], state["converged"]
        self.micro, self.rollbacks = state["micro"], state["rollbacks"]
        self.plan = self._plan()

    def export(self, folder: Path) -> None:
        """Save the averaged control as a diffusers folder."""
        with self.ema.swapped():
            self.control.save(folder, dtype=getattr(torch, self.settings.export))

    def export_best(self, folder: Path) -> bool:
        """Save the averaged control of the checkpoint with the lowest validation loss, where that is not the last one;
        the trainer holds its state afterwards."""
        if self.kept is None or self.kept["step"] == self.step:
            return False
        state = load_checkpoint(self.folder / "checkpoints", self.accelerator.device, int(self.kept["step"]))
        if state is None:
            return False
        self._restore(state)
        self.export(folder)
        return True


def as_measured(line: dict[str, float]) -> Measured:
    return Measured(int(line["step"]), line["gain"], line["gain_error"], line["true"])


def make_optimizer(control: ControlNet, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW, the paper's; or Muon, which on a small network took a fraction of the steps."""
    if settings.optimizer == "muon":
        return Muon(muon_groups([control]), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    parameters = [p for p in control.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def to_train_(control: ControlNet, frozen_copy: bool = False) -> None:
    """Choose what trains: the hint encoder, the connections that are used, and all of the copy, or none of it."""
    control.requires_grad_(True)
    control.copy.requires_grad_(not frozen_copy)
    if control.only_mid:
        for connection in control.zero_convs[:-1]:
            connection.requires_grad_(False)


def mirror_of(condition: str) -> Callable[[Any], Any]:
    """How a hint of the condition looks in a mirror: not only turned round where its colours name sides."""
    known = {name: c for c in CONDITIONS.values() for name in (c.name, *c.aliases)}
    return (known[condition].mirror if condition in known else None) or (lambda hint: hint[:, ::-1])


def batch_plan(recipe: Recipe, data: Examples, rank: int, world: int) -> BatchPlan:
    settings = recipe.training
    return BatchPlan(
        data,
        settings.batch_size,
        seed=settings.seed,
        prompt_dropping=settings.prompt_dropping,
        hint_dropout=recipe.data.hint_dropout,
        flip=recipe.data.flip,
        mirror=mirror_of(recipe.data.condition),
        rank=rank,
        world=world,
    )
