"""AdamW on blocks of moments of one byte each: the arithmetic of `zeroconv.optim.adamw8bit`.

A block is 256 numbers with a float32 scale, the block's largest, and a byte a number, four to a
32-bit word. The byte counts on a curve, its square for the mean and its fourth power for the
square, which gives small numbers small steps. Rounding is random and unbiased on that curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroconv.optim.split_weights import BLOCK, join, split

GROUPS, WIDTH = 4, BLOCK // 4  # byte k of a block's word i belongs to its number WIDTH · k + i


def update_blocks(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    mean_words: Tensor,
    square_words: Tensor,
    mean_scales: Tensor,
    deviation_scales: Tensor,
    rows: Tensor,
    lows: Sequence[Tensor] | None = None,
    *,
    numbers: Tensor,
    columns: Tensor,
) -> None:
    """One step of AdamW on blocks of 256 numbers, in place. Weights and gradients are four tensors
    (blocks, 64), float32 or bfloat16 with `lows`; the words (blocks, 64) int32; scales and rows
    (blocks, 1).
    """
    scale, beta1, beta2, size, root, eps, decay = numbers.unbind()
    means, deviations = [], []
    for k, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
        grad = grad.float() * scale
        codes = (mean_words << (24 - 8 * k) >> 24).float() * (1 / 127)  # with its sign
        mean = codes * codes.abs() * mean_scales
        mean = mean * beta1 + grad * (1 - beta1)
        codes = (square_words >> 8 * k & 255).float() * (1 / 255)
        square = (codes * codes * deviation_scales).square()
        square = square * beta2 + grad * grad * (1 - beta2)
        deviation = square.sqrt()
        joined = weight if lows is None else join(weight, lows[k])
        joined = joined * decay - size * mean / (deviation * root + eps)
        if lows is None:
            weight.copy_(joined)
        else:
            high, rest = split(joined)
            weight.copy_(high)
            lows[k].copy_(rest)
        means.append(mean)
        deviations.append(deviation)
    _keep(means, deviations, mean_words, square_words, mean_scales, deviation_scales, rows, columns)


def _keep(
    means: Sequence[Tensor],
    deviations: Sequence[Tensor],
    mean_words: Tensor,
    square_words: Tensor,
    mean_scales: Tensor,
    deviation_scales: Tensor,
    rows: Tensor,
    columns: Tensor,
) -> None:
    """Round the moments to bytes at random, and write them with the scales of their blocks."""
    chances = [rows + column for column in columns.view(GROUPS, WIDTH).unbind()]
    chances = [chance - chance.floor() for chance in chances]  # uniform in [0, 1) for every number
    largest = _largest([mean.abs() for mean in means])
    fit = 127**2 / largest.clamp_min(1e-30)
    places = [(mean.abs() * fit).sqrt() for mean in means]
    rounded = [
        (p + c).floor().clamp_max(127) * m.sign()
        for p, c, m in zip(places, chances, means, strict=True)
    ]
    mean_words.copy_(pack(rounded))
    mean_scales.copy_(largest)
    largest = _largest(deviations)
    fit = 255**2 / largest.clamp_min(1e-30)
    places = [(deviation * fit).sqrt() for deviation in deviations]
    # never zero beside a mean that is not: its update would be divided by ε alone
    square_words.copy_(
        pack([(p + c).floor().clamp(1, 255) for p, c in zip(places, chances, strict=True)])
    )
    deviation_scales.copy_(largest)


def _largest(groups: Sequence[Tensor]) -> Tensor:
    """Of each block (blocks, 1)."""
    a, b, c, d = groups
    return torch.maximum(torch.maximum(a, b), torch.maximum(c, d)).amax(dim=1, keepdim=True)


def update_plain(weight: Tensor, grad: Tensor, state: dict[str, Tensor], numbers: Tensor) -> None:
    """One step of AdamW on the numbers of a small parameter, whose moments are float32, in place.
    `numbers` as `update_blocks` takes them.
    """
    scale, beta1, beta2, size, root, eps, decay = numbers
    mean, square, low = state["mean"], state["square"], state.get("low")
    grad = grad.float() * scale
    mean.lerp_(grad, 1 - beta1)
    square.lerp_(grad * grad, 1 - beta2)
    joined = weight if low is None else join(weight, low)
    joined.mul_(decay).sub_(size * mean / (square.sqrt() * root + eps))
    if low is not None:
        for half, value in zip((weight, low), split(joined), strict=True):
            half.copy_(value)


def pack(groups: Sequence[Tensor]) -> Tensor:
    """Four tensors of whole numbers, of which the lowest byte is meant → int32 words."""
    parts = [(group.to(torch.int32) & 255) << 8 * k for k, group in enumerate(groups)]
    return parts[0] | parts[1] | parts[2] | parts[3]
