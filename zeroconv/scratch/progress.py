"""State of a base-model training run: one atomic file a stage, and sample grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroconv.files import atomic_write


def save_state(
    path: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **extra: Any
) -> None:
    """Write weights, optimiser state, torch's random state and plain numbers or further state dicts
    atomically.
    """
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        **extra,
    }
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def load_state(
    path: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any] | None:
    """Restore what `save_state` wrote; returns the extra entries, or None where there is no such
    file.
    """
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state.pop("model"))
    if optimizer is not None:
        optimizer.load_state_dict(state.pop("optimizer"))
        torch.set_rng_state(state.pop("rng"))
    return state


def read_progress(path: Path) -> dict[str, Any] | None:
    """Steps and seconds of a saved stage, or None where there is none."""
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True, mmap=True)
    return {"step": state["step"], "seconds": state["seconds"]}


def save_grid(pictures: Tensor, path: Path, columns: int) -> None:
    """Draw pictures (N, 3, H, W) in [−1, 1] as one PNG, row by row."""
    from PIL import Image

    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    canvas = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    values = (
        ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    )
    for i, picture in enumerate(values):
        y, x = divmod(i, columns)
        canvas[y * height : (y + 1) * height, x * width : (x + 1) * width] = picture
    with atomic_write(path.with_suffix(".png")) as temporary:
        Image.fromarray(canvas).save(temporary)
