"""The learning rate of a step."""

from __future__ import annotations

import math

from zeroconv.training.recipes.training import TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then the schedule; a function of the step alone. The curves are diffusers' of
    the same names.
    """
    warm = min(1.0, (step + 1) / (settings.warmup + 1))
    if settings.schedule == "constant":
        return settings.learning_rate * warm
    progress = min(1.0, max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup))
    if settings.schedule == "cosine":
        left = (
            0.5 * (1 + math.cos(math.pi * (progress * settings.cycles % 1)))
            if progress < 1
            else 0.0
        )
    else:
        left = (1 - progress) ** (settings.power if settings.schedule == "polynomial" else 1)
    return settings.learning_rate * warm * left
