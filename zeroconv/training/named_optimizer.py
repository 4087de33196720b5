"""An optimiser that a recipe names by its class."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from zeroconv.errors import UserError
from zeroconv.training.recipes.optimizer import MODULES, OptimizerClass


def find_class(wish: OptimizerClass) -> type[torch.optim.Optimizer]:
    """The class, from a module of the allow-list. Raises UserError where it is not installed, or
    is no optimiser.
    """
    module, _, name = wish.name.rpartition(".")
    assert module in MODULES
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise UserError(
            f"training.optimizer.class {wish.name} needs the package {MODULES[module]} "
            f"({error}); install it, or name a class of torch.optim."
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise UserError(
            f"training.optimizer.class: {module} has no optimiser {name}; check its name."
        )
    return kind


def make_named(
    wish: OptimizerClass, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimiser, with `weight_decay` where it takes one.

    Raises UserError for options that it does not take, with its own reason.
    """
    kind = find_class(wish)
    takes = inspect.signature(kind).parameters
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in wish.options.items()
    }
    if unknown := sorted(set(options) - set(takes)):
        known = sorted(set(takes) - {"params", "lr", "weight_decay"})
        raise UserError(
            f"{wish.name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}."
        )
    if "weight_decay" in takes:
        options["weight_decay"] = weight_decay
    try:
        return kind(list(parameters), lr=lr, **options)  # type: ignore[call-arg]
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{wish.name} does not take these options ({reason}).") from error
