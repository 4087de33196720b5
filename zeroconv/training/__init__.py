"""Training: `train` a ControlNet from a recipe; `base` trains the playroom's own base model."""

from __future__ import annotations

from zeroconv.training.recipes.recipe import Recipe, load_recipe
from zeroconv.training.run import cache_command, train, train_command

__all__ = ["Recipe", "cache_command", "load_recipe", "train", "train_command"]
