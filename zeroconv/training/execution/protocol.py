"""What a run asks of the object that executes its steps, and what it gives that object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from zeroconv.backbones import UNetBackbone
from zeroconv.control import Net
from zeroconv.data.batches import Batch
from zeroconv.optim.ema import Ema
from zeroconv.training.objective import ControlledLoss


@dataclass
class Model:
    """What a run trains, in the numbers that its recipe names, before anything is compiled or
    split over processes.
    """

    backbone: UNetBackbone
    control: Net | None
    # all that trains is a submodule of it
    loss: ControlledLoss
    # called once the parameters are those that are trained
    make_optimizer: Callable[[], torch.optim.Optimizer]
    # (step, micro-batch, process) → the generator that timesteps and noise are drawn from
    noise: Callable[[int, int, int], torch.Generator]
    # whose state dicts stand in a run's state, by their names there
    modules: Mapping[str, nn.Module] = field(default_factory=dict)

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.loss.parameters() if p.requires_grad]


class Execution(Protocol):
    """How the steps of a run are executed: chosen once, by `zeroconv.training.execution.choice`.

    All processes of a run call `gradients`, `clip`, `gather`, `scatter`, `agreed`, `broadcast` and
    `wait` together, in the same order.
    """

    device: torch.device
    rank: int
    processes: int
    main: bool  # the process that writes files
    # whether all processes must run a forward pass together, as each holds a part of the weights
    collective: bool

    loss: ControlledLoss
    parameters: list[nn.Parameter]  # of this process; in the order of `Model.trained`
    optimizer: Any
    scaler: torch.amp.GradScaler | None  # of float16's loss
    ema: Ema

    def gradients(self, micro_batches: Sequence[Batch], step: int) -> float:
        """Let the parameters' gradients be those of the mean loss over all micro-batches and
        processes; returns that loss.
        """
        ...

    def clip(self, limit: float) -> float:
        """Bound the norm of the gradient, in the loss's own scale; returns what it was."""
        ...

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the network has its averaged weights."""
        ...

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """A run's state with undivided tensors, as it is written to a file; of use in the main
        process alone.
        """
        ...

    def scatter(self, state: dict[str, Any]) -> dict[str, Any]:
        """The opposite: of a state that was read from a file, what this process loads."""
        ...

    def agreed(self, *wishes: bool) -> list[bool]:
        """Each wish, if any process has it."""
        ...

    def broadcast(self, value: Any) -> Any:
        """The main process's value, in all of them."""
        ...

    def wait(self) -> None:
        """Until all processes are here."""
        ...
