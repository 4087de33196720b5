"""What the C library does with memory that a step frees and the next one takes again."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

from torch import Tensor, nn

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
MAPPED = 2**25  # bytes from which a block is mapped by itself


def keep_pages() -> bool:
    """Ask glibc to keep freed memory instead of giving it back to the system; False where there is
    no glibc.

    By default the end of the heap goes back as soon as it is free, and the kernel clears its pages
    anew when they are touched again: a training step takes and frees the same gigabytes over and
    over. Blocks above 32 MiB, which are large weights' gradients, stay mapped one by one: in the
    heap they leave holes that nothing else fits (`zeroconv.layers.cpu.keep_gradients_` keeps those
    it can). What is kept counts as this process's memory until it ends.
    """
    libc = _glibc()
    if libc is None:
        return False
    libc.malloc_trim(0)  # what building the model left over goes first
    return bool(libc.mallopt(_MMAP_THRESHOLD, MAPPED) and libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def is_mapped_gradient(p: Tensor) -> bool:
    """Whether this weight trains on the CPU and is so large that its gradient is mapped by
    itself.
    """
    return p.requires_grad and p.device.type == "cpu" and p.numel() * p.element_size() >= MAPPED


def has_mapped_gradients(module: nn.Module) -> bool:
    """Whether some gradient is mapped anew in every step: see
    `zeroconv.layers.cpu.keep_gradients_`.
    """
    return any(
        is_mapped_gradient(p) and not hasattr(p, "kept_gradient") for p in module.parameters()
    )


def give_back_before(residual: Tensor) -> None:
    """Give kept memory back once in the backward pass: when the gradient of `residual`, the last
    that the decoder's part of it finds, is there.

    What the decoder kept is free then, and cannot be used for gradients that are mapped one by one
    anew: without this the two add up. It took a tenth of a second for 0.6 GiB on a busy machine.
    """
    if residual.requires_grad and _glibc() is not None:
        residual.register_hook(_trim)


def _trim(gradient: Tensor) -> None:
    libc = _glibc()
    assert libc is not None
    libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library where it is glibc, or None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.malloc_trim and libc.mallopt else None
    except (OSError, AttributeError):  # another C library
        return None
