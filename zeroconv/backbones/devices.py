"""Where to compute and in which numbers: the words of `--device` and `--dtype`."""

from __future__ import annotations

import torch

from zeroconv.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_KINDS = ("cpu", "cuda", "mps")


def pick_device(name: str = "auto") -> str:
    """`auto` → cuda, else mps, else cpu; any other name as it is, where this machine has it.

    Raises UserError for a device that is not there, or that nothing can be computed on (`meta`).
    """
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if _has(kind))
    known = name.partition(":")[0] in _KINDS
    try:
        if not known:
            raise RuntimeError
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        there = ", ".join(kind for kind in _KINDS if _has(kind))
        raise UserError(
            f"this machine has no device {name!r}: it has {there}; leave --device out to take the "
            "best of them"
        ) from error
    return name


def _has(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind == "cpu" or torch.backends.mps.is_available()


def pick_dtype(name: str = "auto", device: str = "cpu") -> torch.dtype:
    """`auto` → bfloat16 where the device multiplies its matrices faster, else float32.

    Raises UserError for an unknown name, and for float16 on a processor: it has no units for it,
    and activations overflow.
    """
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise UserError(f"there is no dtype {name!r}: choose auto, {', '.join(DTYPES)}")
    if name == "float16" and device.startswith("cpu"):
        raise UserError(
            "float16 is for graphics cards: on a processor choose bfloat16, which is faster, or "
            "float32"
        )
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.bfloat16` → "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def multiplies_bfloat16(device: str) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices.

    A processor: AMX, or AVX512-BF16. On one core of a Zen 4, which has the second alone, a step of
    Stable Diffusion's UNet at 256 pixels took 1.4 s instead of 3.0 s, and pictures of the playroom
    three quarters of their time. NVIDIA's cards: from compute capability 8.0. Apple's: not tried,
    so float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    # torch asks the processor; its names for that are not public, so a version may lack them
    units = ("amx_tile", "avx512_bf16")
    asks = [getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in units]
    return kind == "cpu" and any(bool(ask()) for ask in asks if ask is not None)
