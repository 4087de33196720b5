"""Frozen weights in fewer bits: linear and convolution layers that hold int8, float8 or
half-precision weights.

Weight-only: a layer makes its weight anew in the dtype it computes in, forwards and again
backwards, so that no whole copy is ever kept. Activations are as precise as before and gradients
flow through to them; the weights get none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from zeroconv.errors import UserError
from zeroconv.layers.cpu import product, product_back, weight_parts

Bits = Literal["bf16", "fp16", "int8", "fp8"]
_DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
# of the numbers a weight is scaled to; the others need no scale
_LARGEST = {"int8": 127.0, "fp8": 448.0}
# read or write the data itself, or are read for their dtype: small, and worth every bit
_KEPT = ("conv_in", "conv_out", "time_embedding", "add_embedding", "t_embedder")


RUNNING = ("int8", "fp8")  # of `--quantise`; the other two are dtypes


def check_quantise(bits: str | None) -> None:
    """Raise UserError for weights that a model is not run with."""
    if bits is not None and bits not in RUNNING:
        raise UserError(
            f"there is no quantise {str(bits)[:80]!r}; choose {', '.join(RUNNING)}, or leave it "
            "out."
        )


def quantise_(unet: nn.Module, bits: Bits) -> None:
    """Hold the weights of a frozen UNet's linear and convolution layers in fewer bits, in place.

    One scale an output channel, its largest weight over 127 (int8) or 448 (fp8). Norms, biases,
    embeddings and the first and last convolution stay as they are. Copies made before keep their
    own weights.
    """
    assert bits in get_args(Bits)
    for name, child in unet.named_children():
        if name in _KEPT or any(parameter.requires_grad for parameter in child.parameters()):
            continue  # a decoder that trains keeps its weights
        for parent in child.modules():
            for key, layer in parent.named_children():
                if type(layer) in (nn.Linear, nn.Conv2d):
                    setattr(parent, key, QuantisedLayer(cast(Any, layer), bits))


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict that a module would have without fewer bits; their weights in float32."""
    state = dict(module.state_dict())
    for name, layer in module.named_modules():
        if isinstance(layer, QuantisedLayer):
            state.pop(f"{name}.scale", None)
            state[f"{name}.weight"] = dequantise(layer.weight, layer.scale, torch.float32)
    return state


class QuantisedLayer(nn.Module):
    """A frozen `nn.Linear` or `nn.Conv2d` with a weight of fewer bits; computes in its input's
    dtype, or autocast's.
    """

    weight: Tensor
    scale: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d, bits: Bits) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.bias = (
            None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
        )
        self.convolution: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            assert layer.padding_mode == "zeros"
            self.convolution = {
                n: getattr(layer, n) for n in ("stride", "padding", "dilation", "groups")
            }
        scale = None
        if bits in _LARGEST:
            scale = (
                weight.float().abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True)
                / _LARGEST[bits]
            )
            scale = scale.clamp_min(torch.finfo(torch.float32).tiny)  # a channel of zeros
            weight = weight / scale
        if bits == "int8":
            weight = weight.round()
        self.register_buffer("weight", weight.to(_DTYPES[bits]))  # (O, I) or (O, I, h, w)
        self.register_buffer("scale", scale)  # (O, 1) or (O, 1, 1, 1), float32

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        return _Layer.apply(x, self.weight, self.scale, self.bias, self.convolution)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves it between devices and memory formats; what weights are held in does not follow the
        model's dtype.
        """

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, conv: Any
    ) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.conv, ctx.shape = conv, x.shape
        bias = None if bias is None else bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            if conv is None and in_parts(x):
                rows = x.reshape(-1, x.shape[-1])
                return _product(rows, weight, scale, bias).view(*x.shape[:-1], -1)
            dequantised = dequantise(weight, scale, x.dtype)
            if conv is None:
                return nn.functional.linear(x, dequantised, bias)
            return nn.functional.conv2d(x, dequantised, bias, **conv)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        weight, scale = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.conv is None and scale is None and in_parts(grad):
                rows = grad.reshape(-1, grad.shape[-1])
                dx = product_back(rows, weight).view(ctx.shape)
                return dx, None, None, None, None
            dequantised = dequantise(weight, scale, grad.dtype)
            if ctx.conv is None:
                return grad @ dequantised, None, None, None, None
            return conv2d_input(ctx.shape, dequantised, grad, **ctx.conv), None, None, None, None


def in_parts(x: Tensor) -> bool:
    """Whether a linear layer of x makes its weight piece by piece: on a processor, in float32, and
    not while torch.compile traces, whose graphs would break at oneDNN's product.
    """
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and not torch.compiler.is_compiling()


def _product(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x (rows, K), weight (O, K) held in fewer bits → x Wᵀ + b (rows, O)."""
    if scale is None:
        return product(x, weight, bias)
    y = x.new_empty(len(x), len(weight))
    for i, part in weight_parts(weight, 0):
        y[:, i : i + len(part)] = product(x, dequantise(part, scale[i : i + len(part)], x.dtype))
    return y if bias is None else y.add_(bias)


def dequantise(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight in the dtype to compute in; scaled in float32, rounded once."""
    return weight.to(dtype) if scale is None else (weight.float() * scale).to(dtype)
