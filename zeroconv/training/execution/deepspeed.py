"""ZeRO stages 1 and 2 by DeepSpeed, through accelerate: moments (and gradients) in parts, one a
process.

    accelerate launch --use_deepspeed --zero_stage 2 --num_processes 8 -m zeroconv.cli train
    recipe.yaml

DeepSpeed's engine owns the backward pass, the clipping and the step; weights stay whole in every
process, so that measuring, pictures and averages are as ever. A checkpoint is put together from the
parts and looks like any other: a run may go on without DeepSpeed, with more processes or fewer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor

from zeroconv.data.batches import Batch
from zeroconv.data.cache.examples import Examples
from zeroconv.errors import UserError
from zeroconv.training.execution.eager import Eager
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.recipe import AnyRecipe, Recipe
from zeroconv.training.recipes.training import TrainingSettings

MOMENTS = ("exp_avg", "exp_avg_sq")


def asks_for_deepspeed() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def check_deepspeed(recipe: AnyRecipe) -> None:
    """Raises UserError for what the launcher asks DeepSpeed for in vain, and for recipes that do
    not go with it.
    """
    _check_wishes()
    _check_recipe(recipe)
    if recipe.device == "cpu" and torch.cuda.is_available():
        raise UserError(
            "device cpu does not go with DeepSpeed where there is a card; leave one of the two out."
        )

    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", recipe.training.precision):
        raise UserError(
            f"the launcher asks for mixed precision {precision} and the recipe for "
            f"training.precision {recipe.training.precision}; what the recipe says counts, so drop "
            "the launcher's."
        )
    if find_spec("deepspeed") is None:
        raise UserError(
            "the launcher asks for DeepSpeed, which is not installed; pip install deepspeed, or "
            "use --multi_gpu."
        )


def _check_wishes() -> None:
    """Raises UserError for what a launcher asks for and is not followed."""
    if os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        raise UserError(
            "the launcher names a DeepSpeed config; the recipe says all that stands there, so drop "
            "it."
        )

    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("1", "2"):
        other = (
            "--use_fsdp --fsdp_version 2 cuts weights up too"
            if stage == "3"
            else "--multi_gpu is the same"
        )
        raise UserError(
            f"the launcher asks DeepSpeed for ZeRO stage {stage}, of which 1 and 2 are followed; "
            f"{other}."
        )

    for name in ("OPTIMIZER", "PARAM"):
        device = os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{name}_DEVICE", "none")
        if device.lower() not in ("none", ""):
            raise UserError(
                f"the launcher asks DeepSpeed to hold the {name.lower()} elsewhere than on the "
                f"card; drop --offload_{name.lower()}_device: training.optimizer adamw8bit takes a "
                "quarter of the memory."
            )


def _check_recipe(recipe: AnyRecipe) -> None:
    training = recipe.training
    kind = recipe.control.kind if isinstance(recipe, Recipe) else None
    wrong = {
        "training.sharding fsdp": training.sharding == "fsdp",
        f"training.optimizer {training.optimizer}": training.optimizer != "adamw",
        f"training.precision {training.precision}": training.precision not in ("fp32", "bf16"),
        f"control.kind {kind}": kind not in ("controlnet", None),
        "a LoRA of the base": kind is None,
    }
    for setting, refused in wrong.items():
        if refused:
            raise UserError(
                f"{setting} does not go with DeepSpeed; use adamw in bf16 for a ControlNet, or "
                "--multi_gpu."
            )


class DeepSpeed(Eager):
    """Every process holds all weights and a part of the moments."""

    fixed = True

    def _set_up(self, data: Examples, settings: TrainingSettings) -> None:
        self.parameters = self.model.trained()
        optimizer = self.model.make_optimizer()
        self.optimizer = DeepSpeedOptimizer(self.loss, optimizer, self.accelerator, settings)

    def add_gradients(
        self, batch: Batch, generator: torch.Generator, number: int, of: int
    ) -> Tensor:
        return self.optimizer.add_gradients(batch, generator, number, of)

    def clip(self, limit: float) -> float:
        """By the engine, to the recipe's limit."""
        return self.optimizer.clip()


class DeepSpeedOptimizer:
    """Stands in for the optimiser: its groups are the optimiser's, its state is put together from
    all processes.

    All processes call `state_dict` and `load_state_dict` together.
    """

    def __init__(
        self,
        loss: ControlledLoss,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        settings: TrainingSettings,
    ) -> None:
        saved = optimizer.state_dict()["param_groups"]
        self.trained = [[cast(Any, p) for p in group["params"]] for group in optimizer.param_groups]
        for parameter in loss.parameters():
            # DeepSpeed lays them side by side, row after row
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        self.places = [group["params"] for group in saved]
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config |= {
            "train_micro_batch_size_per_gpu": settings.batch_size,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": settings.clip,
            "steps_per_print": 2**31,
            "train_batch_size": "auto",
        }
        self.engine, _ = accelerator.prepare(loss, optimizer)
        # DeepSpeed put its own parameters, a process's parts, into these groups
        self.inner = optimizer
        self.state: dict[Any, Any] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    def add_gradients(
        self, batch: Batch, generator: torch.Generator, number: int, of: int
    ) -> Tensor:
        """Of micro-batch `number` of a step's `of`; returns its share of the mean loss."""
        loss = self.engine(batch, generator) / of
        last = number + 1 == of
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss)
        if not last:
            self.engine.step()  # counts it
        return loss.detach()

    def clip(self) -> float:
        """Clips and makes the step; returns the norm of the gradient. One that is no number leaves
        the weights.
        """
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def step(self) -> None:
        """Made by `clip`."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Done by the engine."""

    def state_dict(self) -> dict[str, Any]:
        """As torch's AdamW has it."""
        groups = [
            {**{name: value for name, value in group.items() if name != "params"}, "params": places}
            for group, places in zip(self.param_groups, self.places, strict=True)
        ]
        state: dict[int, dict[str, Tensor]] = {}
        for parameter, part in self._parts():
            moments = {name: self._undivided(parameter, part[name]) for name in MOMENTS}
            # each its own: saved as one, they would be one when read, and AdamW
            # counts in each of them
            state[len(state)] = {
                "step": torch.as_tensor(part["step"]).float().cpu().clone(),
                **moments,
            }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The weights must be there already: DeepSpeed's own copies of them are made anew."""
        from deepspeed.utils import safe_set_full_fp32_param

        for group, saved in zip(self.param_groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        for i, (parameter, part) in enumerate(self._parts()):
            safe_set_full_fp32_param(parameter, parameter.detach().clone())
            for name, value in state["state"].get(i, {}).items():
                if name == "step":
                    part["step"].copy_(torch.as_tensor(value))
                elif parameter._hp_mapping is not None:
                    there, here = _slices(parameter)
                    part[name][there] = value.to(part[name]).contiguous().flatten()[here]

    def _parts(self) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """Every parameter with the moments of its group's part in this process, one long vector
        each.
        """
        for group, parameters in zip(self.param_groups, self.trained, strict=True):
            flat = group["params"][0]
            if not self.inner.state[flat]:  # as AdamW makes it in its first step
                self.inner.state[flat] = {
                    "step": torch.zeros((), device=flat.device),
                    **{n: torch.zeros_like(flat) for n in MOMENTS},
                }
            for parameter in parameters:
                yield parameter, self.inner.state[flat]

    def _undivided(self, parameter: Any, part: Tensor) -> Tensor:
        """A moment of one parameter, put together from all processes."""
        moment = torch.zeros_like(
            parameter, dtype=torch.float32, memory_format=torch.contiguous_format
        ).flatten()
        if parameter._hp_mapping is not None:  # else this process has nothing of it
            there, here = _slices(parameter)
            moment[here] = part[there]
        torch.distributed.all_reduce(moment)
        return moment.view(parameter.shape).cpu()


def _slices(parameter: Any) -> tuple[slice, slice]:
    """Where this process's numbers of a parameter stand: in its long vectors, and in the
    parameter.
    """
    there, here = (
        parameter._hp_mapping.hp_fragment_address,
        parameter._hp_mapping.lp_fragment_address,
    )
    return slice(there.start, there.start + there.numel), slice(here.start, here.start + here.numel)
