"""Where control enters classifier-free guidance, and how strongly at each connection (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from zeroconv.backbones import Connection
from zeroconv.errors import UserError

MODES = ("both", "cond", "resolution", "guess")


def check_mode(mode: str) -> str:
    if mode not in MODES:
        raise UserError(f"There is no guidance {mode!r}; choose one of {', '.join(MODES)}.")
    return mode


def connection_weights(mode: str, connections: Sequence[Connection]) -> list[float]:
    """One weight a connection, from the shallowest to the middle.

    both, cond: 1. resolution: w_i = H / h_i, the latent's size over the connection's own (the paper's CFG resolution
    weighting, 64 / h_i at 512 pixels). guess: 0.825^(n−1−i), as the released code has it for n = 13.
    """
    n = len(connections)
    if check_mode(mode) == "resolution":
        return [float(connection.scale) for connection in connections]
    if mode == "guess":
        return [0.825 ** (n - 1 - i) for i in range(n)]
    return [1.0] * n


def controls_uncond(mode: str) -> bool:
    """Whether the unconditional half of guidance gets the residuals too: only in `both`."""
    return check_mode(mode) == "both"


def combine(uncond: Tensor, cond: Tensor, cfg: float) -> Tensor:
    """ε = ε_uc + β(ε_c − ε_uc)."""
    return uncond + cfg * (cond - uncond)
