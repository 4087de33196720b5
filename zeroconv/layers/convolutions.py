"""Convolutions on a CPU, for sampling: in float32 and without gradients.

Where positions are few, a convolution takes as long as reading its weights, and oneDNN lays them
out anew at every call. A convolution of 1 × 1 is a product over positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroconv.layers.cpu import patches

FEW = 16  # positions up to which a convolution of 3 × 3 is a product of gathered patches


def is_same_size(conv: Any, side: int) -> bool:
    """A convolution with filters of this side that leaves height and width, with a bias."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (side, side)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding == (side // 2, side // 2)
        and conv.padding_mode == "zeros"
        and conv.groups == 1
        and conv.bias is not None
        and conv.weight.is_contiguous(memory_format=torch.channels_last)
    )


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """x (N, C, H, W) → the layer's output, (N, C', H, W), for layers of `is_same_size`."""
    if (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or conv.weight.dtype != torch.float32
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
    ):
        return nn.Conv2d.forward(conv, x)
    product = conv1 if conv.kernel_size == (1, 1) else conv3
    return product(x, conv.weight, conv.bias)


def conv3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3 × 3 with padding 1; weight (C', C, 3, 3) is channels last."""
    n, _, height, width = x.shape
    if n * height * width > FEW:
        return torch.conv2d(x, weight, bias, 1, 1)
    rows = functional.linear(patches(x, 3, 1, 1), weight.permute(0, 2, 3, 1).flatten(1), bias)
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)


def conv1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1 × 1; the output is channels last."""
    # rows in a block: torch multiplies others in another order
    rows = functional.linear(x.permute(0, 2, 3, 1).contiguous(), weight.flatten(1), bias)
    return rows.permute(0, 3, 1, 2)
