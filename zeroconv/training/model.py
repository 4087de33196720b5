"""What a recipe of a control trains: which parameters, in which numbers, by which optimiser."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import UNetBackbone
from zeroconv.conditions.union import find_kind
from zeroconv.control import Net
from zeroconv.training.execution.memory import hold_frozen_
from zeroconv.training.execution.precision import autocast_dtype, computes_in_bf16, prepare_
from zeroconv.training.execution.protocol import Model
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.optimizer import make_optimizer
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.recipes.training import TrainingSettings
from zeroconv.training.reward.reward import Reward
from zeroconv.training.unlock import add_to_optimizer, unlock_

TRAINING = 4  # the first number of the streams that steps are drawn from, after the seed


def prepare_control(
    recipe: Recipe, backbone: UNetBackbone, control: Net, reward: Reward | None = None
) -> Model:
    """`control` and a frozen `backbone`, whose decoder trains too if the recipe unlocks it. Both
    are changed in place. Raises UserError for settings that do not go with the control.
    """
    settings, device = recipe.training, backbone.device
    to_train_(control, recipe.control.frozen_copy)
    decoder = unlock_(backbone, control) if recipe.control.unlock_decoder else None
    control.train()

    hold_frozen_(backbone, control, settings.frozen)
    lows = prepare_(backbone, control, settings.precision, settings.compile)
    loss = ControlledLoss(
        backbone,
        control,
        autocast_dtype(settings.precision, device),
        settings.timesteps,
        settings.min_snr,
        settings.offset_noise,
        decoder,
        settings.mask_mean,
        reward,
    )
    if computes_in_bf16(settings.precision, device):
        loss.weights_dtype = torch.bfloat16

    modules = {"control": cast(nn.Module, control)}
    if decoder is not None:
        modules["decoder"] = decoder
    return Model(
        backbone,
        control,
        loss,
        make_optimizer=partial(_optimizer, control, decoder, settings, lows),
        noise=partial(stream, device, settings.seed, TRAINING),
        modules=modules,
    )


def _optimizer(
    control: Net,
    decoder: nn.Module | None,
    settings: TrainingSettings,
    lows: dict[nn.Parameter, Tensor],
) -> torch.optim.Optimizer:
    optimizer = make_optimizer(control, settings, lows)
    if decoder is not None:
        add_to_optimizer(optimizer, decoder, settings)
    return optimizer


def kinds_of(
    control: Any, condition: str, conditions: Iterable[str | None]
) -> dict[str | None, int] | None:
    """Of a Union control: the number of the kind of each condition, of None that of the recipe's
    `condition`. None for any other control. Raises UserError for a condition that is no kind of it.
    """
    if not hasattr(control, "of_kind"):
        return None
    if hasattr(control, "number_of"):  # modes of a transformer's control
        return {name: control.number_of(name or condition) for name in conditions}
    count = len(control.kinds)
    return {name: find_kind(name or condition, count) for name in conditions}


def to_train_(control: Net, frozen_copy: bool = False) -> None:
    """Let train what the net names as trainable, and nothing else of it."""
    control.requires_grad_(False)
    for parameter in control.trainable(frozen_copy):
        parameter.requires_grad_(True)
