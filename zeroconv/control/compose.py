"""Residuals of a control, each times its scale: over connections, time, pictures and places.

Residuals of several controls are summed and nothing else (paper, section 3.4 and figure 6). The
rules that give the numbers stand in `zeroconv.generation.guidance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zeroconv.backbones import Connection


def masks_at(
    mask: Tensor, connections: Sequence[Connection], size: tuple[int, int]
) -> list[Tensor]:
    """A mask (N, 1, H, W) in [0, 1] in pixels → its means over the cells of each connection.

    size: of the latents (h, w). Each is (N, 1, h_i, w_i), of tokens (N, h_i · w_i, 1); a cell that
    lies half inside gets half of the residual.
    """
    shapes = [(math.ceil(size[0] / c.scale), math.ceil(size[1] / c.scale)) for c in connections]
    small = {shape: nn.functional.adaptive_avg_pool2d(mask, shape) for shape in set(shapes)}
    masks = [small[shape] for shape in shapes]
    return [
        m.flatten(2).transpose(1, 2) if c.kind == "tokens" else m
        for m, c in zip(masks, connections, strict=True)
    ]


def scaled(
    residuals: Sequence[Tensor],
    connection_scales: Sequence[float],
    factor: float = 1.0,
    pictures: Tensor | None = None,
    masks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Residuals (N, C_i, h_i, w_i) or (N, L, C_i), or () where a control gives none, times all that
    applies.

    That is the connection's scale, the curve's factor, each picture's own scale (N,), and the
    control's mask as `masks_at` gives it.
    """
    out = []
    for i, (residual, scale) in enumerate(zip(residuals, connection_scales, strict=True)):
        r = scale * factor * residual
        if r.dim() and pictures is not None:
            r = r * like(pictures, r).reshape(-1, *[1] * (r.dim() - 1))
        if r.dim() and masks is not None:
            r = r * like(_whole(masks[i], r), r)
        out.append(r)
    return out


def _whole(mask: Tensor, residual: Tensor) -> Tensor:
    """A mask of the picture's tokens (N, h · w, 1) for a residual that has others behind them, as
    those of the caption (Z-Image): there it is its mean, so a mask of ones changes nothing.
    """
    if residual.dim() != 3 or mask.dim() != 3 or mask.shape[1] == residual.shape[1]:
        return mask
    others = residual.shape[1] - mask.shape[1]
    return torch.cat([mask, mask.mean(1, keepdim=True).expand(-1, others, -1)], dim=1)


def add_up(
    first: Sequence[Tensor | None] | None, second: Sequence[Tensor | None] | None
) -> list[Tensor | None] | None:
    """Residuals of two controls, connection by connection; None is nothing."""
    if first is None or second is None:
        chosen = second if first is None else first
        return None if chosen is None else list(chosen)
    pairs = zip(first, second, strict=True)
    return [a if b is None else b if a is None else a + b for a, b in pairs]


def like(value: Tensor, residual: Tensor) -> Tensor:
    """As many as the residual has: where both halves of guidance are controlled, the same twice."""
    value = value.to(residual.device, residual.dtype)
    if len(value) in (1, len(residual)):
        return value
    return torch.cat([value] * (len(residual) // len(value)))
