"""Weights, gradients, moments and averages cut up over the processes of a run: FSDP2
(`torch.distributed.fsdp`).

Every process holds one of N parts, along the first dimension, of every tensor that trains, and of
the frozen UNet. A module's weights are gathered when it runs and dropped behind it; its gradients
are added up over the processes and each keeps its own part. So all processes must run the same
modules in the same order, also where only one of them needs what comes out: validation, pictures
and rounds of evaluation are run by all.

The optimiser and the averages see a process's parts as ordinary tensors: AdamW looks at every
number by itself, and torch's own way, through tensors that know their whole, took longer than the
rest of a small step. What is written is whole. A checkpoint looks the same whether its run was cut
up or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from zeroconv.data.batches import Batch
from zeroconv.data.cache.examples import Examples
from zeroconv.layers.checkpointing import find_parts
from zeroconv.training.execution.dtensor import (
    clip_,
    cut,
    joined,
    local_part,
    part_of,
    put_together,
)
from zeroconv.training.execution.eager import Eager
from zeroconv.training.execution.protocol import Model
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.training import TrainingSettings


class Fsdp(Eager):
    """Every process holds a part of what trains.

    reshard: as `FullyShardedLoss` takes it.
    """

    collective = True
    fixed = True

    def __init__(
        self,
        accelerator: Any,
        model: Model,
        data: Examples,
        settings: TrainingSettings,
        report: Callable[[str], None],
        reshard: bool = True,
    ) -> None:
        self.reshard = reshard
        super().__init__(accelerator, model, data, settings, report)

    def _set_up(self, data: Examples, settings: TrainingSettings) -> None:
        # fewer bits are no parameters, which is what can be cut up
        frozen = settings.frozen == "same"
        self.wrapped = FullyShardedLoss(
            self.loss,
            self.model.backbone.denoiser,
            self.device,
            self.processes,
            self.reshard,
            frozen,
        )
        self.parameters = self.wrapped.parts
        self.optimizer = self.model.make_optimizer()
        self.wrapped.adopt(self.optimizer)

    def gradients(self, micro_batches: Sequence[Batch], step: int) -> float:
        loss = super().gradients(micro_batches, step)
        self.wrapped.hand_over()
        return loss

    def _waiting(self, last: bool) -> Any:
        """Gradients are cut up after every micro-batch: whole ones would take too much memory."""
        return nullcontext()

    def clip(self, limit: float) -> float:
        return clip_([part.grad for part in self.parameters], limit)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self.wrapped.drop_gathered()  # weights, which a pass within a step has left
        with self.ema.swapped():
            try:
                yield
            finally:
                # averages, which the next step would take for the weights
                self.wrapped.drop_gathered()

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        trained = self.wrapped.trained
        return put_together(_each(state, lambda value, i: joined(value, trained[i])))

    def scatter(self, state: dict[str, Any]) -> dict[str, Any]:
        trained = self.wrapped.trained
        parted = _each(state, lambda value, i: part_of(value, trained[i]))
        modules = {
            name: cut(state[name], module.state_dict())
            for name, module in self.model.modules.items()
        }
        return {**parted, **modules}


def _each(state: dict[str, Any], change: Callable[[Tensor, int], Tensor]) -> dict[str, Any]:
    """`change(value, i)` for all that a run's state holds of the i-th parameter: its average, its
    moments, and itself where parameters stand there without their modules.
    """
    ema, optimizer = state["ema"], state["optimizer"]
    average = [change(value, i) for i, value in enumerate(ema["average"])]
    moments = {
        # but the step
        i: {name: change(value, i) if value.dim() else value for name, value in inner.items()}
        for i, inner in optimizer["state"].items()
    }
    changed = {
        **state,
        "ema": {**ema, "average": average},
        "optimizer": {**optimizer, "state": moments},
    }
    if "parameters" in state:
        changed["parameters"] = [change(value, i) for i, value in enumerate(state["parameters"])]
    return changed


class FullyShardedLoss(nn.Module):
    """Cuts up what trains in `loss`, and with `frozen` the rest of `unet`, over the processes of
    `device`; called in place of the loss.

    reshard: gather a module's weights again for its backward pass and hold none of them in between.
    Cut up are the modules that `units` finds; this module, which holds them all, is what torch
    calls their root. `parts`: of each parameter that trains, the control's and then the decoder's,
    what this process holds; gradients reach them by `hand_over`.
    """

    def __init__(
        self,
        loss: ControlledLoss,
        unet: nn.Module,
        device: torch.device,
        processes: int,
        reshard: bool = True,
        frozen: bool = True,
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__()
        # the method: of a module within this one the leftovers would be cut up too
        self.compute = loss.forward
        modules = [*units(loss), *(find_parts([unet]) if frozen else [])]
        self.units = nn.ModuleList(dict.fromkeys(modules))  # an unlocked decoder stands there twice
        mesh = init_device_mesh(device.type, (processes,))
        for unit in self.units:
            for parameter in unit.parameters():
                parameter.data = parameter.data.contiguous()  # channels last cannot be cut up
            fully_shard(unit, mesh=mesh, reshard_after_forward=reshard)
        fully_shard(cast(nn.Module, self), mesh=mesh)
        self()
        # what is gathered first while pictures are made could never be part of a graph
        for unit in self.units:
            cast(Any, unit).unshard()
            cast(Any, unit).reshard()
        self.trained = [cast(DTensor, p) for p in loss.parameters() if p.requires_grad]
        # else gradients would stay in their process
        assert all(isinstance(p, DTensor) for p in self.trained)
        self.parts = [nn.Parameter(local_part(p)) for p in self.trained]

    def forward(self, batch: Any = None, generator: torch.Generator | None = None) -> Tensor | None:
        """The loss; of nothing, nothing. torch takes the first module that runs for the root, and a
        validation or a picture would run the inner ones first.
        """
        return None if batch is None else self.compute(batch, cast(torch.Generator, generator))

    def hand_over(self) -> None:
        """Give the parts their gradients, once a step's are all added up."""
        for parameter, part in zip(self.trained, self.parts, strict=True):
            part.grad = None if parameter.grad is None else local_part(parameter.grad)
            parameter.grad = None

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimiser without a state yet look at the parts."""
        part = {id(p): part for p, part in zip(self.trained, self.parts, strict=True)}
        for group in optimizer.param_groups:
            group["params"] = [part[id(p)] for p in group["params"]]

    def drop_gathered(self) -> None:
        """Let go of whole weights that a forward pass without a backward pass has left behind."""
        for unit in self.units:
            cast(Any, unit).reshard()


def units(module: nn.Module) -> Iterator[nn.Module]:
    """The modules whose weights are gathered together: residual blocks, transformers, up- and
    downsamplers and the hint encoder, and outside of these whatever holds weights itself. Each of
    them is always called as a module.
    """
    parts = set(find_parts([module]))

    def walk(module: nn.Module) -> Iterator[nn.Module]:
        if module in parts or next(module.parameters(recurse=False), None) is not None:
            yield module
        else:
            for child in module.children():
                yield from walk(child)

    return walk(module)
