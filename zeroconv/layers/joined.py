"""The last layer of FLUX.1's single blocks: attention beside GELU, times one matrix. The two are
written where the product reads them, and GELU is made again for the weight's gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeroconv.layers.cpu import outer, product, product_back


class Joined(torch.autograd.Function):
    """a ‖ GELU(h), over the last dimension, times Wᵀ + b. Only a and h are kept."""

    @staticmethod
    def forward(
        ctx: Any, attended: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(attended if ctx.needs_input_grad[2] else None, hidden, weight)
        ctx.width = attended.shape[-1]
        both = _beside(attended, hidden).flatten(0, -2)
        return product(both, weight, bias).view(*hidden.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # type: ignore[override]
        attended, hidden, weight = ctx.saved_tensors
        wanted, rows = ctx.needs_input_grad, dy.reshape(-1, dy.shape[-1])
        da = dh = dw = None
        if wanted[0]:
            da = product_back(rows, weight[:, : ctx.width]).view(*dy.shape[:-1], -1)
        if wanted[1]:
            dh = product_back(rows, weight[:, ctx.width :]).view_as(hidden)
            torch.ops.aten.gelu_backward.grad_input(dh, hidden, approximate="tanh", grad_input=dh)
        if wanted[2]:
            dw = outer(rows, _beside(attended, hidden).flatten(0, -2), weight)
        return da, dh, dw, rows.sum(0) if wanted[3] else None


def _beside(attended: Tensor, hidden: Tensor) -> Tensor:
    """(…, A), (…, H) → (…, A + H): attention, and GELU of the hidden layer."""
    width = attended.shape[-1]
    both = hidden.new_empty(*hidden.shape[:-1], width + hidden.shape[-1])
    both[..., :width] = attended
    torch.ops.aten.gelu.out(hidden, approximate="tanh", out=both[..., width:])
    return both
