"""How a run ended, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zeroconv.data.cache.examples import Examples
from zeroconv.machine import peak_memory
from zeroconv.training.state import RunState


def summary_of(run: RunState, held_out: Examples, status: str) -> dict[str, Any]:
    """What every run says of itself. status: "finished" or "interrupted"."""
    samples = run.micro * run.settings.batch_size * run.plan.world
    return {
        "status": status,
        "steps": run.step,
        "samples": samples,
        "minutes": round(run.seconds / 60, 2),
        "samples_per_second": round(samples / max(1e-9, run.seconds), 2),
        "examples": len(run.plan.examples),
        "broken": len(run.plan.examples.broken) + len(held_out.broken),
        "rollbacks": run.rollbacks,
        "peak_memory_mb": round(_peak_memory() / 2**20),
    }


def last_round(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the log says of the newest round of pictures; it is cut with the run's state, so nothing
    else keeps it.
    """
    rounds = [
        {"step": line["step"], **line["evaluation"]} for line in lines if line.get("evaluation")
    ]
    return rounds[-1] if rounds else None


def _peak_memory() -> int:
    """Bytes: the most this process has held, or the most of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_memory()
