"""Bases that are distilled to few steps, by themselves or by a LoRA: what is asked of them beside
what they are made for.
"""

from __future__ import annotations

import warnings
from typing import Any

from zeroconv.checkpoints.lora import FewSteps
from zeroconv.generation.samplers.names import SAMPLERS, read_names


def few_steps_of(backbone: Any) -> FewSteps | None:
    """How pictures are made in few steps; None for a base of ordinary steps."""
    return getattr(backbone, "few_steps", None)


def note_few_steps(
    backbone: Any,
    scheduler: Any,
    schedule: str | None,
    steps: int,
    cfg: float,
    eta: float | None = None,
) -> None:
    """A note where sampler, steps, guidance or η differ from those that the base is distilled for.

    scheduler: a name, an object of diffusers, or None for the base's own.
    """
    few = few_steps_of(backbone)
    if few is None:
        return
    asked = []
    if scheduler is not None and not _is_sampler(scheduler, schedule, few):
        called = scheduler if isinstance(scheduler, str) else type(scheduler).__name__
        asked.append(called if schedule is None else f"{called} with the schedule {schedule}")
    if not few.steps[0] <= steps <= few.steps[1]:
        asked.append(f"{steps} steps")
    if not few.cfg[0] <= cfg <= few.cfg[1]:
        asked.append(f"cfg {cfg:g}")
    if few.eta is not None and eta != few.eta:
        asked.append("its usual eta" if eta is None else f"eta {eta:g}")
    if asked:
        warnings.warn(
            f"{backbone.name} is distilled to few steps{f' ({few.where})' if few.where else ''}: "
            f"{few.name} is made for {few.words()}; what is asked for has {', '.join(asked)}.",
            stacklevel=4,
        )


def _is_sampler(scheduler: Any, schedule: str | None, few: FewSteps) -> bool:
    sampler, wanted = read_names(few.scheduler)
    if not isinstance(scheduler, str):
        spacing = scheduler.config.get("timestep_spacing")
        same = type(scheduler).__name__ == SAMPLERS[sampler].kind
        return same and (wanted is None or spacing == wanted)
    return read_names(scheduler, schedule) == (sampler, wanted)
