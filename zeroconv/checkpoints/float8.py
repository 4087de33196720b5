"""Weights that a file holds in eight bits with a scale beside each, as ComfyUI writes them.

A weight W of float8 stands for W · s, where s is one float32 for the tensor, or one an output
channel. Its name is the module's with `scale_weight`, or `weight_scale` in newer files. Weights of
float8 without a scale are numbers as they are, and nothing here is done to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from zeroconv.errors import UserError

_SCALES = (".scale_weight", ".weight_scale")
_INPUTS = (".scale_input", ".input_scale")  # for activations in eight bits: not needed
_FORMAT = ".comfy_quant"  # a JSON text as bytes: {"format": "float8_e4m3fn"}
_MARK = "scaled_fp8"  # an empty tensor that only says that scales are there


def is_scaled(names: Mapping[str, Tensor]) -> bool:
    """Whether some weights have a scale beside them."""
    return any(name.endswith((*_SCALES, _FORMAT)) or _is_mark(name) for name in names)


def unscaled(
    state: Mapping[str, Tensor], where: object, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The state dict with every scaled weight multiplied out in float32 and rounded once to
    `dtype`; other tensors are the same objects.

    Raises UserError for a scale without its weight, of another shape, or no finite number, and for
    weights in formats other than float8.
    """
    if not is_scaled(state):
        return dict(state)
    scales = {_module(name, _SCALES): value for name, value in state.items() if _of_scale(name)}
    for name, value in state.items():
        if name.endswith(_FORMAT):
            _check_format(value, name, where)

    plain = {name: value for name, value in state.items() if not _is_extra(name)}
    for module, scale in scales.items():
        name = f"{module}.weight"
        if name not in plain:
            raise UserError(
                f"{where} has a scale for {name[:100]}, but not that weight; the file is damaged."
            )
        plain[name] = _multiplied(plain[name], scale, name, where).to(dtype)
    return plain


def without_scales(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as they are stored, for who looks at shapes alone."""
    return {name: value for name, value in state.items() if not _is_extra(name)}


def _multiplied(weight: Tensor, scale: Tensor, name: str, where: object) -> Tensor:
    if not weight.is_floating_point():
        kind = str(weight.dtype).removeprefix("torch.")
        raise UserError(
            f"{where}: tensor {name[:100]} holds {kind} numbers with a scale; zeroconv reads "
            "float8 so, and no other format; give the float16 file."
        )
    fits = scale.numel() == 1 or (weight.ndim and scale.numel() == weight.shape[0])
    if not fits or not scale.is_floating_point() or not bool(torch.isfinite(scale.float()).all()):
        raise UserError(
            f"{where}: the scale of {name[:100]} is {list(scale.shape)} of "
            f"{str(scale.dtype).removeprefix('torch.')}, no finite number for the tensor or for "
            "each output channel; the file is damaged."
        )
    return weight.float() * scale.float().reshape(-1, *[1] * (weight.ndim - 1))


def _check_format(value: Tensor, name: str, where: object) -> None:
    try:
        named = json.loads(bytes(value.flatten().to(torch.uint8).tolist())).get("format")
    except (ValueError, AttributeError, RuntimeError):
        named = None
    if named not in ("float8_e4m3fn", "float8_e5m2"):
        raise UserError(
            f"{where}: {name[:100]} names the format {str(named)[:40]!r}; of ComfyUI's formats "
            "zeroconv reads float8_e4m3fn and float8_e5m2; give the float16 file."
        )


def _of_scale(name: str) -> bool:
    return name.endswith(_SCALES)


def _is_mark(name: str) -> bool:
    return name.rpartition(".")[2] == _MARK


def _is_extra(name: str) -> bool:
    return name.endswith((*_SCALES, *_INPUTS, _FORMAT)) or _is_mark(name)


def _module(name: str, ends: tuple[str, ...]) -> str:
    for end in ends:
        name = name.removesuffix(end)
    return name
