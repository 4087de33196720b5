"""Group norms on a CPU, for sampling.

torch's kernel for channels last takes several times as long as that for channels first where a
group's channels do not fill vectors, as in the playroom (5, 13).
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

# numbers; a group of so many channels, or a multiple, is what torch's kernel is made for
VECTOR = 8
# positions from which and numbers up to which (they stay in the cache) products take less time
LEAST, MOST = 64, 2**21


def is_slow(layer: nn.Module) -> TypeGuard[nn.GroupNorm]:
    """Whether torch's kernel is not made for this group norm."""
    return (
        type(layer) is nn.GroupNorm
        and bool(layer.num_channels // layer.num_groups % VECTOR)
        and layer.affine
    )


def group_norm(layer: nn.GroupNorm, x: Tensor, silu: bool = False) -> Tensor:
    """x (N, C, H, W) → the layer's output, (N, C, H, W) in x's layout; `silu`: SiLU of it.

    What is multiplied and added is one number a channel. The variance is the mean square less the
    squared mean, as in torch's kernel for this layout, and as exact.
    """
    n, c, height, width = x.shape if x.ndim == 4 else (0, 0, 0, 0)
    if (
        height * width < LEAST
        or x.numel() > MOST
        or not is_slow(layer)
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or not x.is_contiguous(memory_format=torch.channels_last)
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
    ):
        y = nn.GroupNorm.forward(layer, x)
        return functional.silu(y, inplace=True) if silu else y
    rows = x.permute(0, 2, 3, 1).view(n, height * width, c)
    sums = torch.cat([rows.sum(1), (rows * rows).sum(1)])  # (2N, C)
    # the same mean for all channels of a group
    means = sums.view(2 * n, layer.num_groups, -1).mean(2, keepdim=True) / (height * width)
    mean, square = means[:n], means[n:]  # (N, G, 1)
    inverse = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0).add_(layer.eps).rsqrt_()
    factor = inverse * layer.weight.view(layer.num_groups, -1)  # (N, G, C / G)
    offset = torch.addcmul(layer.bias.view(layer.num_groups, -1), mean, factor, value=-1)
    y = torch.addcmul(offset.view(n, 1, c), rows, factor.view(n, 1, c))
    y = functional.silu(y, inplace=True) if silu else y
    return y.view(n, height, width, c).permute(0, 3, 1, 2)
