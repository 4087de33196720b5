"""What a run's folder says of its training, without the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.errors import UserError

STATE = "state.pt"


def read_weights(folder: Path) -> dict[str, Tensor] | None:
    """The weights of a run's last state, or None where it has none."""
    state = _read(folder)

    return None if state is None else state["model"]


def read_progress(folder: Path) -> dict[str, float] | None:
    """Steps and seconds of a run's last state, or None where it has none."""
    state = _read(folder)

    return None if state is None else state["progress"]


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / STATE
    if not path.exists():
        return None

    return torch.load(path, weights_only=True, mmap=True)


def read_average(run: Path, decay: str) -> tuple[dict[str, Tensor], int]:
    """The averaged weights of a run and the step they belong to.

    Raises UserError where the run has no such average.
    """
    from safetensors import safe_open

    path = run / f"average-{decay}.safetensors"
    if not path.is_file():
        known = sorted(file.stem.removeprefix("average-") for file in run.glob("average-*"))
        raise UserError(f"{run} has no average {decay}; it has {', '.join(known) or 'none yet'}.")

    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step = int((file.metadata() or {}).get("step", 0))

    return weights, step


def fill_(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load averaged weights into a model. What is no float, such as positions, has no average.

    Raises UserError for weights of another model.
    """
    expected = {name for name, value in model.state_dict().items() if value.is_floating_point()}
    if odd := sorted(expected ^ set(weights)):
        raise UserError(
            f"The average belongs to another model: {odd[0]} differs; take its own run."
        )

    try:
        model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise UserError(f"The average belongs to another model ({error}).") from error
