"""How a run is executed, chosen once, from what its recipe and its launcher ask for.

First come the checks and accelerate's processes (`launch`), before any work. Later, when model and
data are there, the object that executes the steps (`Launch.execution`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from zeroconv.data.cache.examples import Examples
from zeroconv.training.execution.compile import check_compile
from zeroconv.training.execution.cuda_graphs import CudaGraphs, can_record
from zeroconv.training.execution.deepspeed import DeepSpeed, asks_for_deepspeed, check_deepspeed
from zeroconv.training.execution.eager import Eager
from zeroconv.training.execution.fsdp import Fsdp
from zeroconv.training.execution.launcher import (
    asked_fsdp,
    check_launcher,
    check_processes,
    processors_only,
)
from zeroconv.training.execution.protocol import Execution, Model
from zeroconv.training.execution.threads import use_threads
from zeroconv.training.recipes.recipe import AnyRecipe
from zeroconv.training.recipes.training import TrainingSettings


@dataclass(frozen=True)
class Launch:
    """The processes of a run, and which execution they are for."""

    accelerator: Any
    kind: Callable[..., Execution] = Eager
    note: str | None = None  # a line for the user

    def execution(
        self,
        model: Model,
        data: Examples,
        settings: TrainingSettings,
        report: Callable[[str], None],
    ) -> Execution:
        """What executes the steps of `model` on `data`; `report` hears a line at a time."""
        kind = self.kind
        alone = kind is Eager and self.accelerator.num_processes == 1
        if alone and can_record(model.loss, data, settings):
            kind = CudaGraphs
        return kind(self.accelerator, model, data, settings, report)


def launch(recipe: AnyRecipe) -> Launch:
    """Check what the recipe and the launcher ask for together, and start accelerate.

    Raises UserError, before any work, for what contradicts itself or is not done.
    """
    use_threads(recipe.training.threads)
    check_launcher()
    fsdp, deepspeed = asked_fsdp(recipe), asks_for_deepspeed()
    if deepspeed:
        check_deepspeed(recipe)

    accelerator = _accelerator(recipe, deepspeed)
    check_processes(fsdp, accelerator.num_processes)
    check_compile(recipe.training, accelerator.device)
    if fsdp is not None:
        return Launch(accelerator, partial(Fsdp, reshard=fsdp.reshard), fsdp.note)
    return Launch(accelerator, DeepSpeed if deepspeed else Eager)


def _accelerator(recipe: AnyRecipe, deepspeed: bool) -> Accelerator:
    # accelerate has DeepSpeed choose how processes talk where it sees no card, and DeepSpeed
    # has no choice of its own
    gloo = {"backend": "gloo"} if deepspeed and not torch.cuda.is_available() else {}
    # accelerate places processes and devices; autocast is ours, so that two runs in one
    # process may differ in it
    return Accelerator(
        # processes wait for each other while one draws pictures or another still fills the cache
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2), **gloo)],
        mixed_precision="no",
        cpu=not deepspeed and (recipe.device == "cpu" or processors_only()),
        log_with=list(recipe.training.report_to) or None,
        project_config=ProjectConfiguration(logging_dir=str(Path(recipe.out) / "tensorboard")),
    )
