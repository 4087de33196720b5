"""Training a control: its gradients, the measure of the hint gain, pictures, and all that a
checkpoint keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from zeroconv.backbones import UNetBackbone
from zeroconv.control import ControlNet, Net
from zeroconv.data.batches import Batch, BatchPlan, mirror_of, mirrors_of
from zeroconv.data.cache.examples import Examples
from zeroconv.errors import UserError
from zeroconv.optim.adamw8bit import recover_lows
from zeroconv.optim.ema import Ema
from zeroconv.optim.layout import lay_out_
from zeroconv.training.checkpoint import (
    drawn_from,
    fitting,
    load_checkpoint,
    save_checkpoint,
    told_apart,
)
from zeroconv.training.convergence import Measured, detect
from zeroconv.training.execution.compile import compile_layers_
from zeroconv.training.execution.cuda_graphs import make_graphs
from zeroconv.training.execution.deepspeed import Zero, asks_for_zero
from zeroconv.training.execution.launcher import Sharding
from zeroconv.training.execution.memory import hold_frozen_, spare_activations_
from zeroconv.training.execution.precision import (
    autocast_dtype,
    computes_whole,
    loss_scale,
    prepare_,
)
from zeroconv.training.loop import Loop
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.optimizer import make_optimizer
from zeroconv.training.recipes.recipe import Recipe, parse_action
from zeroconv.training.reporting.log import Meter, RunLog
from zeroconv.training.reporting.samples import sample_grid
from zeroconv.training.rounds import Rounds, told
from zeroconv.training.unlock import add_to_optimizer, save_base, unlock_
from zeroconv.training.validation import Validator

if TYPE_CHECKING:
    from zeroconv.training.execution.fsdp import Shards


class Trainer(Loop):
    """Trains `control` on `data` around a frozen `backbone`, whose decoder trains too, in place, if
    the recipe unlocks it. Everything that changes is in `state()`.
    """

    def __init__(
        self,
        recipe: Recipe,
        backbone: UNetBackbone,
        control: Net,
        data: Examples,
        held_out: Examples,
        accelerator: Any,
        say: Callable[[str], None] = print,
        sharding: Sharding | None = None,
    ) -> None:
        super().__init__()
        self.recipe, self.settings, self.say = recipe, recipe.training, say
        self.folder, self.accelerator = Path(recipe.out), accelerator
        self.backbone, self.control, self.held_out = backbone, control, held_out
        to_train_(control, recipe.control.frozen_copy)
        self.decoder = unlock_(backbone, control) if recipe.control.unlock_decoder else None
        control.train()
        hold_frozen_(backbone, control, self.settings.frozen)
        lows = prepare_(backbone, control, self.settings.precision, self.settings.compile)
        self.loss = ControlledLoss(
            backbone,
            control,
            autocast_dtype(self.settings.precision, accelerator.device),
            self.settings.timesteps,
            self.settings.min_snr,
            self.settings.offset_noise,
            self.decoder,
        )
        if computes_whole(self.settings.precision, accelerator.device):
            self.loss.whole = torch.bfloat16
        # before anything is computed again, so that it is the compiled layer that is
        self.compiled = compile_layers_(backbone, control, data, self.settings, say)
        if told := spare_activations_(self.loss, data, self.settings):
            say(told)
        self.shards: Shards | None = None  # where each process holds a part of what trains
        if sharding is not None:
            from zeroconv.training.execution.fsdp import Shards

            # fewer bits are no parameters, which is what can be cut up
            frozen = self.settings.frozen == "same"
            place = (accelerator.device, accelerator.num_processes)
            self.shards = Shards(self.loss, backbone.unet, *place, sharding.reshard, frozen)
        # which would rather have the memory
        elif self.settings.checkpointing == "none" and not asks_for_zero():
            height, width = max(data.moments.shapes(), key=lambda shape: shape[0] * shape[1])
            self.loss.keep_gradients_(self.settings.batch_size * height * width)
        # DistributedDataParallel where there are several processes and each holds everything
        zero = asks_for_zero()
        self.wrapped: Any = self.shards or (None if zero else accelerator.prepare_model(self.loss))
        self.parameters = [p for p in control.parameters() if p.requires_grad]
        self.optimizer: Any = make_optimizer(control, self.settings, lows)
        if self.decoder is not None:
            self.parameters += self.decoder.parameters()
            add_to_optimizer(self.optimizer, self.decoder, self.settings)
        if self.shards is not None:
            self.shards.adopt(self.optimizer)
            self.parameters = self.shards.parts
        self.zero = Zero(self.loss, self.optimizer, accelerator, self.settings) if zero else None
        self.optimizer = self.zero or self.optimizer
        self.scaler = loss_scale(self.settings.precision, accelerator.device)
        master, fixed = getattr(self.optimizer, "master", None), self.shards is not None or zero
        self.ema = Ema(self.parameters, self.settings.ema_decay, master, fixed)
        # with parts of the weights all must
        self.measures = accelerator.is_main_process or self.shards is not None
        self.data = data
        self.first_plan = batch_plan(
            recipe, data, accelerator.process_index, accelerator.num_processes
        )
        alone = self.first_plan.world == 1 and self.shards is None and not zero
        self.graphs = (
            make_graphs(self.loss, self.parameters, data, self.settings) if alone else None
        )
        self.validator = Validator(
            self.loss,
            held_out,
            recipe.data.validation_count,
            2 * self.settings.batch_size,
            self.settings.seed,
        )
        self.log = RunLog(self.folder / "log.jsonl", active=accelerator.is_main_process)
        self.meter = Meter(self.settings.batch_size * self.first_plan.world)
        self.last: dict[str, float] | None = None  # of the newest validation
        self.best: dict[str, float] | None = None  # and of the one with the lowest loss
        self.kept: dict[str, float] | None = None  # and of the best that has a checkpoint
        self.history: list[dict[str, float]] = []  # what every validation measured
        self.converged: dict[str, float] | None = None  # when the hints began to be followed
        # hears of every sheet of pictures
        self.show: Callable[[int, Path], None] = lambda step, sheet: None
        # writes the run's report anew, on the main process
        self.page: Callable[[], None] = lambda: None
        self.rounds: Rounds | None = None  # of pictures that are read back, on the main process

    # ---------------------------------------------------------------- a step

    def _gradients(self, micro: list[Batch]) -> float:
        settings, accelerator = self.settings, self.accelerator
        total = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(micro):
            generator = stream(
                accelerator.device, settings.seed, 4, self.step, number, accelerator.process_index
            )
            # gradients that are cut up are so after every micro-step, as whole ones
            # would take too much memory
            quiet = number + 1 < len(micro) and self.plan.world > 1 and self.shards is None
            batch = batch.to(accelerator.device)
            if (whole := self.zero or self.graphs) is not None:
                with self.compiled():
                    total += whole.add_gradients(batch, generator, number, len(micro))
                continue
            with self.compiled(), self.wrapped.no_sync() if quiet else nullcontext():
                loss = self.wrapped(batch, generator) / len(micro)
                accelerator.backward(self._scaled(loss))
            total += loss.detach()
        if self.shards is not None:
            self.shards.hand_over()
        return float(accelerator.reduce(total, "mean"))

    def _clip(self) -> float:
        if self.zero is not None:
            return self.zero.clip()
        return super()._clip() if self.shards is None else self.shards.clip(self.settings.clip)

    def _agreed(self, *wishes: bool) -> list[bool]:
        if self.plan.world == 1:
            return list(wishes)
        return [
            bool(n)
            for n in self.accelerator.reduce(
                torch.tensor(wishes, device=self.accelerator.device).float()
            )
        ]

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
        if self.measures:
            self._measure()
        if self.plan.world > 1:  # what follows from it must be done by all alike
            shared = [self.converged]
            broadcast_object_list(shared)
            self.converged = shared[0]

    def _measure(self) -> None:
        with self._averaged():
            measured = self.validator.measure()
        self.last = {"step": self.step, **measured.as_dict()}
        self.log.write(self.step, validation=measured.as_dict())
        self.say(
            f"step {self.step}/{self.settings.steps}  hint gain {measured.gain:+.4f} ± "
            f"{measured.gain_error:.4f}  (loss: true hint {measured.true:.4f}, another's "
            f"{measured.shuffled:.4f}, none {measured.none:.4f})"
        )
        if not math.isfinite(measured.true):  # neither the best ever, nor a step to convergence
            return
        if self.best is None or measured.true < self.best["true"]:
            self.best = self.last
        self.history.append(self.last)
        if self.converged is None and (
            found := detect([Measured.of(line) for line in self.history])
        ):
            self.converged = found.as_dict()
            self.log.write(self.step, event="converged", converged=self.converged)
            action = f"; {self.settings.on_convergence}" if self.settings.on_convergence else ""
            self.say(
                f"step {self.step}: the hints are followed since step {found.step} (gain "
                f"{found.gain:+.4f}, confidence {found.confidence:.4f}){action}"
            )

    def _sample(self) -> None:
        if not self.settings.sample_count or not self.measures:
            return
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
        with self._averaged():
            self.control.eval()
            sample_grid(
                path if self.accelerator.is_main_process else None,
                self.backbone,
                self.control,
                self.held_out,
                self.settings,
            )
            self.control.train()
        self.say(f"step {self.step}/{self.settings.steps}  pictures: {path}")
        self.show(self.step, path)

    def _evaluate(self) -> None:
        if self.rounds is None:
            return
        with self._averaged():
            if not self.accelerator.is_main_process:
                self.rounds.make(self.control)
                return
            found, sheet = self.rounds.run(self.step, self.control)
        self.log.write(self.step, evaluation=found)
        self.say(f"step {self.step}/{self.settings.steps}  {told(found)}")
        self.show(self.step, sheet)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the network has its averaged weights. Where they are cut up, all processes must
        go in together.
        """
        with self.ema.swapped():
            try:
                yield
            finally:
                if self.shards is not None:
                    # averages, which the next step would take for the weights
                    self.shards.drop_gathered()

    # ---------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        return {
            "control": self.control.state_dict(),
            "decoder": None if self.decoder is None else self.decoder.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "drawn_from": drawn_from(self.data, self.plan.world),
            # with the step, this is the place in the data and in the noise
            "seed": self.settings.seed,
            "skipped": self.skipped,
            "seconds": self.seconds,
            # of the steps since the last line of the log
            "losses": [self.meter.losses, self.meter.count],
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
            last = self.last
            fresh = last is not None and last["step"] == self.step and math.isfinite(last["true"])
            if fresh and (self.kept is None or last["true"] <= self.kept["true"]):  # type: ignore[index]
                self.kept = last
        if self.measures or self.zero is not None:  # whose moments all must put together
            state = self.state()
        if self.shards is not None:
            state = self.shards.whole(state)
        if self.accelerator.is_main_process:
            best = None if self.kept is None else int(self.kept["step"])
            save_checkpoint(self.folder / "checkpoints", self.step, state, self.settings.keep, best)
            self.page()
        self.accelerator.wait_for_everyone()

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of the run's folder; False where there is none."""
        state = self._saved()
        if state is None:
            self.log.cut(0)
            return False
        for line in told_apart(state.get("drawn_from"), drawn_from(self.data, self.plan.world)):
            self.say(line)
        with fitting(self.folder / "checkpoints"):
            self._restore(state)
        self.log.cut(self.step)
        return True

    def _saved(self, step: int | None = None) -> dict[str, Any] | None:
        folder, mapped = self.folder / "checkpoints", self.shards is not None
        return load_checkpoint(folder, self.accelerator.device, step, mapped)

    def _restore(self, state: dict[str, Any]) -> None:
        if self.shards is not None:
            state = self.shards.parted(state, cast(torch.nn.Module, self.control), self.decoder)
        self.control.load_state_dict(state["control"])
        if self.decoder is not None:
            self.decoder.load_state_dict(state["decoder"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        lay_out_(self.optimizer)
        recover_lows(
            self.optimizer,
            [
                (cast(torch.nn.Module, self.control), state["control"]),
                (self.decoder, state["decoder"]),
            ],
        )
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.meter.losses, self.meter.count = state["losses"]
        self.last, self.best, self.kept = state["last"], state["best"], state["kept"]
        self.history, self.converged = state["history"], state["converged"]
        self.micro, self.rollbacks = state["micro"], state["rollbacks"]

    def export(self, folder: Path, base: Path | None = None) -> None:
        """Save the averaged control as a diffusers folder; in `base` the base that its unlocked
        decoder made of the recipe's, if it has one.
        """
        # no process holds it whole, so the main one takes it from the checkpoint
        if self.shards is not None:
            self._export_saved(self._saved(self.step), folder, base)
            return
        with self.ema.swapped():
            decoder = None if self.decoder is None else self.decoder.state_dict()
            self._write(self.control, decoder, folder, base)

    def _export_saved(self, state: dict[str, Any] | None, folder: Path, base: Path | None) -> None:
        """`export`, of a checkpoint."""
        if state is None:
            raise UserError(
                f"the checkpoint of step {self.step} is gone or damaged; go on with the run and "
                "try again."
            )
        # no average: the weights themselves
        average, decoder = state["ema"]["average"], state["decoder"]
        trained = [name for name, p in self.control.named_parameters() if p.requires_grad]
        if self.decoder is not None:
            names = [name for name, _ in self.decoder.named_parameters()]
            decoder = {**decoder, **dict(zip(names, average[len(trained) :], strict=False))}
        control = {**state["control"], **dict(zip(trained, average, strict=False))}
        assert self.shards is not None
        self._write(
            self.shards.rebuilt(cast(ControlNet, self.control), control), decoder, folder, base
        )

    def _write(
        self, control: Net, decoder: dict[str, Tensor] | None, folder: Path, base: Path | None
    ) -> None:
        dtype = getattr(torch, self.settings.export)
        if decoder is not None and base is not None:
            save_base(self.recipe.base, decoder, base, dtype)
            control.config["zeroconv"]["base"] = str(base)
        control.save(folder, dtype=dtype)

    def export_best(self, folder: Path, base: Path | None = None) -> bool:
        """Save the averaged control of the checkpoint with the lowest validation loss, where that
        is not the last one; the trainer holds its state afterwards, unless that is cut up.
        """
        if self.kept is None or self.kept["step"] == self.step:
            return False
        state = self._saved(int(self.kept["step"]))
        if state is None:
            return False
        if self.shards is not None:
            self._export_saved(state, folder, base)
        else:
            self._restore(state)
            self.export(folder, base)
        return True


def to_train_(control: Net, frozen_copy: bool = False) -> None:
    """Let train what the net names as trainable, and nothing else of it."""
    control.requires_grad_(False)
    for parameter in control.trainable(frozen_copy):
        parameter.requires_grad_(True)


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
        mirrors=mirrors_of(set(data.conditions or ())),
        rank=rank,
        world=world,
    )
