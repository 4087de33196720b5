"""The optimiser that a recipe names."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.baselines import Net
from zeroconv.optim.adafactor import Adafactor
from zeroconv.optim.adamw8bit import AdamW8bit
from zeroconv.optim.muon import Muon, muon_groups
from zeroconv.training.named_optimizer import make_named
from zeroconv.training.recipes.optimizer import OptimizerClass
from zeroconv.training.recipes.training import TrainingSettings


def make_optimizer(
    control: Net, settings: TrainingSettings, lows: dict[nn.Parameter, Tensor] | None = None
) -> torch.optim.Optimizer:
    """AdamW, the paper's, with moments of float32 or of a byte each; Muon, which took a small
    network a fraction of the steps; Adafactor, of next to no state. `lows` as `AdamW8bit` takes
    them.
    """
    if isinstance(settings.optimizer, OptimizerClass):
        trained = [p for p in control.parameters() if p.requires_grad]
        rate, decay = settings.learning_rate, settings.weight_decay
        return make_named(settings.optimizer, trained, rate, decay)
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "muon":
        return Muon(muon_groups([cast(nn.Module, control)]), **options)
    parameters = [p for p in control.parameters() if p.requires_grad]
    if settings.optimizer == "adamw8bit":
        return AdamW8bit(parameters, **options, lows=lows)
    if settings.optimizer == "adafactor":
        return Adafactor(parameters, **options)
    return torch.optim.AdamW(parameters, **options, fused=True)
