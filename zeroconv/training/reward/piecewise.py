"""A loss of many pictures whose gradient is made a few pictures at a time.

The gradient with respect to what goes in is computed in the forward pass and kept, so that what a
piece keeps for its own backward pass is free before the next piece. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Piece = Callable[[Tensor, slice], Tensor]  # (some rows, which they are) → one number a row


def in_pieces(rows: Tensor, of: Piece, size: int) -> Tensor:
    """`of` applied to `size` rows at a time: (N,). Its parameters get no gradients."""
    return _InPieces.apply(rows, of, size)


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, of: Piece, size: int) -> Tensor:
        values: list[Tensor] = []
        slopes: list[Tensor] = []
        wanted = ctx.needs_input_grad[0]

        for start in range(0, len(rows), size):
            part = slice(start, min(start + size, len(rows)))
            with torch.set_grad_enabled(wanted):
                piece = rows[part].detach().requires_grad_(wanted)
                value = of(piece, part)
                if wanted:
                    slopes.append(torch.autograd.grad(value.sum(), piece)[0])
            values.append(value.detach())

        if wanted:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (slopes,) = ctx.saved_tensors
        scale = grads[0].view(-1, *[1] * (slopes.dim() - 1))
        return slopes * scale.to(slopes.dtype), None, None
