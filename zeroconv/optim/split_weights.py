"""Weights in bfloat16 with what rounding took from them kept beside.

A weight is `high`, its nearest bfloat16, plus `low`, the rest as a float16. The model computes with
`high` and its gradients are bfloat16; only the optimiser looks at both, so that updates much
smaller than a bfloat16 can hold add up: the sum is right to 2⁻²¹ of the weight or 3·10⁻⁸, whichever
is more (float32: 2⁻²⁵). No copy of the weights in another precision is ever made; weights with
gradients take 6 bytes a number, in float32 8, under autocast 10 with its copies.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

BLOCK = 256  # numbers that share a scale in `zeroconv.optim.adamw8bit`
# numbers of a weight that is worth it; what is smaller stays in float32, as do biases and norms
LEAST = 2**16


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 → (high bfloat16, low float16) of the same shape and layout."""
    high = weight.to(torch.bfloat16)
    return high, (weight - high.float()).to(torch.float16)


def join(high: Tensor, low: Tensor) -> Tensor:
    """The float32 weight of both halves."""
    return high.float() + low.float()


def narrow_all_(module: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Make every weight bfloat16, so that what flows between layers is bfloat16 too and nothing is
    cast; returns the low half of each that trains. For graphics cards: their norms compute in
    float32 inside.
    """
    lows: dict[nn.Parameter, Tensor] = {}
    for weight in module.parameters():
        if weight.dtype == torch.float32:
            weight.data, low = split(weight.data)
            if weight.requires_grad:
                lows[weight] = low
    return lows


def narrow_(module: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Make the large weights of convolutions and linear layers bfloat16; returns the low half of
    each that trains.
    """
    lows: dict[nn.Parameter, Tensor] = {}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and _is_worth_it(layer.weight):
            weight = cast(nn.Parameter, layer.weight)
            weight.data, low = split(weight.data)
            if weight.requires_grad:
                lows[weight] = low
    return lows


def _is_worth_it(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.numel() >= LEAST and weight.numel() % BLOCK == 0
