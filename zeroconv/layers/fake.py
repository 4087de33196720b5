"""Modules whose weights have shapes and no memory, to reckon with before there is any."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def make_fake_(module: nn.Module, mode: FakeTensorMode, dtype: torch.dtype | None = None) -> None:
    """Give a module, which may be on the meta device, weights that claim to lie in this machine's
    memory. dtype: of its floating-point parameters; None as they are. Buffers stay as they are.
    """

    def fake(tensor: Tensor, dtype: torch.dtype | None) -> FakeTensor:
        dtype = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        meta = torch.empty_like(tensor, device="meta", dtype=dtype)
        return FakeTensor(mode, meta, torch.device("cpu"))

    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(
                    fake(weight.detach(), dtype), requires_grad=weight.requires_grad
                )
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else fake(value, None)


def reckoning() -> bool:
    """Whether tensors have shapes and no numbers here, so nothing can depend on them."""
    return isinstance(torch.empty(0), FakeTensor)


def size_of(tensor: Tensor) -> int:
    """Bytes of its numbers."""
    return tensor.numel() * tensor.element_size()


def held_by(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(map(size_of, (*module.parameters(), *module.buffers())))
