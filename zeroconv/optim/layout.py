"""The order in memory of an optimiser's moments."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def lay_out_(optimizer: torch.optim.Optimizer) -> None:
    """Bring moments into the order in memory of their parameters, which fused AdamW takes for
    granted. A checkpoint of a run that was cut up has them one row after the other, whatever its
    parameters were.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
