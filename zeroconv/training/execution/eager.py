"""Steps as torch runs them, one operation after the other: in one process, or in several that hold
everything and share their gradients (DistributedDataParallel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from zeroconv.data.batches import Batch
from zeroconv.data.cache.examples import Examples
from zeroconv.optim.adamw8bit import AdamW8bit
from zeroconv.optim.ema import Ema
from zeroconv.training.execution.compile import compile_layers_
from zeroconv.training.execution.memory import apply_checkpointing_
from zeroconv.training.execution.precision import loss_scale
from zeroconv.training.execution.protocol import Model
from zeroconv.training.recipes.training import TrainingSettings


class Eager:
    """See `Execution`. The other executions are this one with what they do otherwise.

    `report` hears what was done to the model, a line at a time.
    """

    collective = False
    fixed = False  # whether others know where the parameters lie, so that averages are copied

    def __init__(
        self,
        accelerator: Any,
        model: Model,
        data: Examples,
        settings: TrainingSettings,
        report: Callable[[str], None],
    ) -> None:
        self.accelerator, self.model, self.loss = accelerator, model, model.loss
        self.device: torch.device = accelerator.device
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        self.main: bool = accelerator.is_main_process
        self.scaler = loss_scale(settings.precision, self.device)

        # before anything is computed again, so that it is the compiled layer that is
        self.compiled = compile_layers_(model.backbone, model.control, data, settings, report)
        if line := apply_checkpointing_(model.loss, data, settings):
            report(line)

        self._set_up(data, settings)
        master = getattr(self.optimizer, "master", None)
        self.ema = Ema(self.parameters, settings.ema_decay, master, self.fixed)

    def _set_up(self, data: Examples, settings: TrainingSettings) -> None:
        """Wrap the loss, and make the optimiser of its parameters."""
        if settings.checkpointing == "none":  # which would rather have the memory
            height, width = max(data.moments.shapes(), key=lambda shape: shape[0] * shape[1])
            self.loss.keep_gradients_(settings.batch_size * height * width)

        # DistributedDataParallel where there are several processes
        self.wrapped: Any = self.accelerator.prepare_model(self.loss)
        self.parameters = self.model.trained()
        self.optimizer: Any = self.model.make_optimizer()

    # ---------------------------------------------------------------- a step

    def gradients(self, micro_batches: Sequence[Batch], step: int) -> float:
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(micro_batches):
            generator = self.model.noise(step, number, self.rank)
            with self.compiled():
                total += self.add_gradients(
                    batch.to(self.device), generator, number, len(micro_batches)
                )
        if self.loss.reward is not None:
            self.loss.reward.tally.close_step(partial(self.accelerator.reduce, reduction="sum"))
        return float(self.accelerator.reduce(total, "mean"))

    def add_gradients(
        self, batch: Batch, generator: torch.Generator, number: int, of: int
    ) -> Tensor:
        """Add those of micro-batch `number` of a step's `of`; returns its share of the mean loss, a
        scalar on the device.
        """
        with self._waiting(last=number + 1 == of):
            loss = self.wrapped(batch, generator) / of
            self.accelerator.backward(self._scaled(loss))
        return loss.detach()

    def _waiting(self, last: bool) -> Any:
        """Inside, processes do not exchange gradients before a step's last micro-batch."""
        return nullcontext() if last or self.processes == 1 else self.wrapped.no_sync()

    def _scaled(self, loss: Tensor) -> Tensor:
        """What is differentiated: the loss, times float16's scale."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def clip(self, limit: float) -> float:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if isinstance(self.optimizer, AdamW8bit):  # clips while it updates
            return self.optimizer.clip(limit)
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        with self.ema.swapped():
            yield

    # ---------------------------------------------------------------- state and processes

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        return state

    def scatter(self, state: dict[str, Any]) -> dict[str, Any]:
        return state

    def agreed(self, *wishes: bool) -> list[bool]:
        if self.processes == 1:
            return list(wishes)
        counts = self.accelerator.reduce(torch.tensor(wishes, device=self.device).float())
        return [bool(count) for count in counts]

    def broadcast(self, value: Any) -> Any:
        if self.processes == 1:
            return value
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()
