"""The loop: batch, loss, step, average; now and then a checkpoint, a measure of the hint gain, pictures."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeroconv.backbones import UNetBackbone
from zeroconv.conditions import CONDITIONS
from zeroconv.control import ControlNet
from zeroconv.data.batches import Batch, BatchPlan
from zeroconv.data.examples import Examples
from zeroconv.errors import UserError
from zeroconv.training.ema import Ema
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.optim import Muon, muon_groups
from zeroconv.training.recipe import Recipe, TrainingSettings
from zeroconv.training.runlog import Meter, RunLog
from zeroconv.training.samples import sample_grid
from zeroconv.training.state import load_checkpoint, save_checkpoint
from zeroconv.training.stopping import StopSignals
from zeroconv.training.validation import Validator

_PATIENCE = 10  # steps in a row whose loss is no number


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
        self.loss = ControlledLoss(backbone, control, torch.bfloat16 if bf16 else None)
        self.wrapped = accelerator.prepare_model(self.loss)  # DistributedDataParallel where there are several processes
        self.plan = batch_plan(recipe, data, accelerator.process_index, accelerator.num_processes)
        self.validator = Validator(
            self.loss, held_out, recipe.data.validation_count, 2 * self.settings.batch_size, self.settings.seed
        )
        self.log = RunLog(self.folder / "log.jsonl", active=accelerator.is_main_process)
        self.meter = Meter(self.settings.batch_size * self.settings.accumulation * self.plan.world)
        self.step, self.skipped, self.seconds = 0, 0, 0.0  # steps done; of them in a row not finite; time of training
        self.last: dict[str, float] | None = None  # of the newest validation
        self.best: dict[str, float] | None = None  # and of the one with the lowest loss

    # ---------------------------------------------------------------- the loop

    def run(self) -> str:
        """Train to the end; returns "finished", or "interrupted" after SIGTERM or Ctrl-C (the state is saved)."""
        settings, meter = self.settings, self.meter
        meter.start()
        self.control.train()
        began = time.monotonic() - self.seconds
        batches = self.plan.from_step(self.step * settings.accumulation)
        with StopSignals() as stop:
            if self.step == 0:
                self._validate()
            while self.step < settings.steps:
                waited = time.monotonic()
                micro = list(itertools.islice(batches, settings.accumulation))
                waited = time.monotonic() - waited
                loss, norm = self._train_step(micro)
                self.step += 1
                self.seconds = time.monotonic() - began
                meter.add(loss, waited)
                over = settings.max_minutes is not None and self.seconds > 60 * settings.max_minutes
                last = over or self.step == settings.steps
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
            group["lr"] = learning_rate(self.step, settings)
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

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        self.log.write(self.step, event="skipped", loss=str(loss))
        if self.skipped >= _PATIENCE:
            raise UserError(
                f"the loss has been no number for {_PATIENCE} steps, up to step {self.step}; lower "
                "training.learning_rate or raise training.warmup, and start with another out folder."
            )

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
        if not self.settings.validate_every or not self.accelerator.is_main_process:
            return
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

    def _sample(self) -> None:
        if not self.settings.sample_count or not self.accelerator.is_main_process:
            return
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
        with self.ema.swapped():
            self.control.eval()
            sample_grid(path, self.backbone, self.control, self.held_out, self.settings)
            self.control.train()
        self._say_now(f"step {self.step}/{self.settings.steps}  pictures: {path}")

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
        }

    def save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder / "checkpoints", self.step, self.state(), self.settings.keep)
        self.accelerator.wait_for_everyone()

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of the run's folder; False where there is none."""
        state = load_checkpoint(self.folder / "checkpoints", self.accelerator.device)
        if state is None:
            self.log.cut(0)
            return False
        self.control.load_state_dict(state["control"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.meter.losses, self.meter.count = state["losses"]
        self.last, self.best = state["last"], state["best"]
        self.log.cut(self.step)
        return True

    def export(self, folder: Path) -> None:
        """Save the averaged control as a diffusers folder."""
        with self.ema.swapped():
            self.control.save(folder, dtype=getattr(torch, self.settings.export))


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
