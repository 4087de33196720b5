"""Where networks that read pictures compute, and in which numbers.

It is kept in the environment, so that the processes that draw a data set's hints know it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_DEVICE, _DTYPE = "ZEROCONV_READ_ON", "ZEROCONV_READ_IN"


@contextmanager
def reading_on(device: str, dtype: str = "float32") -> Iterator[None]:
    """Inside, networks read pictures on a device ("cuda:1") in a dtype ("bfloat16").

    Otherwise they read on the CPU in float32. HED and PoseNet always do: they are small.
    """
    before = {name: os.environ.get(name) for name in (_DEVICE, _DTYPE)}
    os.environ.update({_DEVICE: device, _DTYPE: dtype})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def placed(net: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Move a network to where it is to read, and give back its inputs there."""
    device = os.environ.get(_DEVICE) or "cpu"
    dtype = getattr(torch, os.environ.get(_DTYPE) or "float32")
    net.to(device=device, dtype=dtype)

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, dtype if value.is_floating_point() else None)

    return {name: move(value) for name, value in inputs.items()}
