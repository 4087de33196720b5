"""Convolutions and linear layers that train faster on a CPU and keep less for their backward pass.

torch hands a convolution to oneDNN, which is at its best with many positions. A UNet of Stable
Diffusion spends half of its arithmetic where there are few (8×8 and 4×4 latents of 1,280 channels):
there a matrix product over gathered patches takes less time, and its weight gradient comes out in
the layout of the weights (channels last), so that nothing is copied. A frozen layer keeps no input.
bfloat16 weights are multiplied in float32 where the processor has no matrix unit for bfloat16 and
the layer has many positions, since then the cast costs less than the slower product.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn
from torch.nn import functional

from zeroconv.layers.allocator import is_mapped_gradient

PATCH_ROWS = 256  # positions up to which a 3×3 convolution is a product of gathered patches
# rows up to which weights @ rowsᵀ is faster than rows @ weightsᵀ: the large operand is packed
# once
THIN_ROWS = 64
THIN_ROWS_BACK = 128  # the same of weightsᵀ @ rowsᵀ
# up to which a 3×3 convolution's weight gradient is a product of gathered patches
PATCH_BYTES = 2**25
CAST_NUMBERS = 2**22  # weights cast at a time, 16 MiB in float32


@cache
def has_bf16_matrix_unit() -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


def use_cpu_layers_(*modules: nn.Module) -> None:
    """Let the plain convolutions and linear layers within compute as this file does; their names,
    weights and state dicts stay as they are.
    """
    for module in modules:
        for layer in module.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = CpuLinear
            elif type(layer) is nn.Conv2d and _is_plain(layer):
                layer.__class__ = CpuConv2d
            elif type(layer) is GEGLU:
                layer.__class__ = CpuGEGLU


def keep_gradients_(module: nn.Module) -> None:
    """Let each weight within that trains keep the memory of its gradient from step to step, where
    the C library would map it by itself. Mapped anew, its pages are cleared by the kernel as they
    are touched: half a second for a gigabyte. Whoever holds a gradient of such a weight sees it
    change in the next backward pass.
    """
    for layer in module.modules():
        if isinstance(layer, CpuConv2d) and layer.kernel_size == (1, 1):
            continue  # multiplies by a view of its weight
        if isinstance(layer, CpuLinear | CpuConv2d) and is_mapped_gradient(layer.weight):
            layer.weight.kept_gradient = None, -1  # type: ignore[attr-defined]  # memory, and the pass that had it last


def _is_plain(layer: nn.Conv2d) -> bool:
    square = all(len(set(pair)) == 1 for pair in (layer.kernel_size, layer.stride, layer.padding))
    return (
        square
        and layer.groups == 1
        and set(layer.dilation) == {1}
        and layer.padding_mode == "zeros"
    )


class CpuLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return _Linear.apply(x, self.weight, self.bias)


class CpuConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        if self.kernel_size == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0):
            rows = x.permute(0, 2, 3, 1)  # (N, H, W, C), no copy where channels are last
            return _Linear.apply(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return _Conv.apply(x, self.weight, self.bias, self.stride[0], self.padding[0])


class CpuGEGLU(GEGLU):
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _Gate.apply(self.proj(x))


class _Gate(torch.autograd.Function):
    """x ‖ g → x · GELU(g). Only its input is kept: GELU(g), the largest thing in a transformer
    block, is made again.
    """

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        x, gate = both.chunk(2, dim=-1)
        return functional.gelu(gate).mul_(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # type: ignore[override]
        (both,) = ctx.saved_tensors
        x, gate = both.chunk(2, dim=-1)
        grad = torch.empty_like(both)
        dx, dgate = grad.chunk(2, dim=-1)
        torch.mul(functional.gelu(gate), dy, out=dx)
        dgate.copy_(torch.ops.aten.gelu_backward(dy * x, gate))
        return grad


# ---------------------------------------------------------------- products


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (rows, K), weight (O, K) → x Wᵀ + b (rows, O), in x's dtype."""
    if weight.dtype != x.dtype:
        y = x.new_empty(len(x), len(weight))
        for i, part in weight_parts(weight, 0):
            y[:, i : i + len(part)] = product(x, part.to(x.dtype))
        return y if bias is None else y.add_(bias)
    # faster than MKL in every shape of the UNet
    if x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    if len(x) > THIN_ROWS:
        return functional.linear(x, weight, bias)
    y = (weight @ x.T).T.contiguous()
    return y if bias is None else y.add_(bias)


def product_back(dy: Tensor, weight: Tensor) -> Tensor:
    """dy (rows, O), weight (O, K) → dy W (rows, K), in dy's dtype."""
    if weight.dtype == dy.dtype:
        return dy @ weight if len(dy) > THIN_ROWS_BACK else (weight.T @ dy.T).T.contiguous()
    dx = dy.new_empty(len(dy), weight.shape[1])
    for i, part in weight_parts(weight, 1):
        dx[:, i : i + part.shape[1]] = dy @ part.to(dy.dtype)
    return dx


def outer(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """dy (rows, O), x (rows, K) → dyᵀ x (O, K) in the dtype of the weight whose gradient it is."""
    dw = gradient_memory(weight)
    if dw.dtype == dy.dtype:
        return torch.mm(dy.T, x, out=dw)
    for i, part in weight_parts(dw, 0):
        part.copy_(dy[:, i : i + len(part)].T @ x)
    return dw


def gradient_memory(weight: Tensor) -> Tensor:
    """Uninitialised (O, K) for a weight's gradient, K what one output sees: what the weight keeps,
    if it does, no earlier gradient is there (accumulation), and this backward pass has not had it
    yet (a layer that is called twice). The tensor is a new one, so that autograd takes it without a
    copy.
    """
    shape, task = (len(weight), weight[0].numel()), torch._C._current_graph_task_id()
    if (
        not hasattr(weight, "kept_gradient")
        or weight.grad is not None
        or weight.kept_gradient[1] == task
    ):
        return torch.empty(shape, dtype=weight.dtype)
    memory = weight.kept_gradient[0]
    memory = torch.empty(shape, dtype=weight.dtype) if memory is None else memory
    weight.kept_gradient = memory, task
    return memory.detach()


def weight_parts(weight: Tensor, dim: int) -> Iterator[tuple[int, Tensor]]:
    """Pieces of a matrix that are cast at a time: where each begins, and the piece."""
    step = max(64, CAST_NUMBERS // weight.shape[1 - dim] // 64 * 64)
    for i in range(0, weight.shape[dim], step):
        yield i, weight.narrow(dim, i, min(step, weight.shape[dim] - i))


class _Linear(torch.autograd.Function):
    """y = x Wᵀ + b over the last dimension. The input is kept only for a weight that trains."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return product(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        rows = dy.reshape(-1, dy.shape[-1])
        dx = (
            product_back(rows, weight).view(*dy.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        )
        dw = outer(rows, x.reshape(-1, x.shape[-1]), weight) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.needs_input_grad[2] else None


# ---------------------------------------------------------------- convolutions


def patches(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(N, C, H, W) → (N·H'·W', kernel·kernel·C): what the convolution sees at each position,
    channels last.
    """
    x = functional.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    n, height, width, c = x.shape
    height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    s = x.stride()
    view = x.as_strided(
        (n, height, width, kernel, kernel, c),
        (s[0], s[1] * stride, s[2] * stride, s[1], s[2], s[3]),
    )
    return view.reshape(n * height * width, kernel * kernel * c)


def fold(
    rows_of_patches: Tensor, shape: torch.Size, kernel: int, stride: int, padding: int
) -> Tensor:
    """The transpose of `patches`: every position's patch added where it was taken from, (N, C, H,
    W).
    """
    n, c, height, width = shape
    rows, columns = (
        (height + 2 * padding - kernel) // stride + 1,
        (width + 2 * padding - kernel) // stride + 1,
    )
    rows_of_patches = rows_of_patches.view(n, rows, columns, kernel, kernel, c)
    out = rows_of_patches.new_zeros(n, height + 2 * padding, width + 2 * padding, c)
    for i in range(kernel):
        for j in range(kernel):
            out[
                :,
                i : i + stride * (rows - 1) + 1 : stride,
                j : j + stride * (columns - 1) + 1 : stride,
            ] += rows_of_patches[:, :, :, i, j]
    return out[:, padding : padding + height, padding : padding + width].permute(0, 3, 1, 2)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.shape, ctx.geometry = x.shape, (stride, padding)
        out, _, kernel, _ = weight.shape
        n, height, width = (
            len(x),
            *((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:]),
        )
        ctx.rows = n * height * width
        if ctx.rows > PATCH_ROWS:
            return functional.conv2d(x, weight.to(x.dtype), bias, stride, padding)
        y = product(patches(x, kernel, stride, padding), _matrix(weight), bias)
        return y.view(n, height, width, out).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        (stride, padding), wanted = ctx.geometry, ctx.needs_input_grad[:3]
        out, c, kernel, _ = weight.shape
        dy = dy.contiguous(memory_format=torch.channels_last)
        rows, dx, dw, db = dy.permute(0, 2, 3, 1).reshape(-1, out), None, None, None
        if wanted[2]:
            db = rows.sum(0)
        as_product = ctx.rows * kernel * kernel * c * dy.element_size() <= PATCH_BYTES
        if wanted[1] and as_product:
            dw = outer(rows, patches(x, kernel, stride, padding), weight)
            dw = dw.view(out, kernel, kernel, c).permute(0, 3, 1, 2)
        if ctx.rows > PATCH_ROWS:
            # oneDNN makes the weight's gradient for the bias's sake, so the latter is not asked for
            wanted = (wanted[0], wanted[1] and not as_product, False)
            if x is None:  # its values are not read for the input's gradient, only its shape
                x = dy.new_empty(1).expand(ctx.shape)
            dx, native, _ = torch.ops.aten.convolution_backward(
                dy,
                x,
                weight.to(dy.dtype),
                [out],
                [stride] * 2,
                [padding] * 2,
                [1, 1],
                False,
                [0, 0],
                1,
                wanted,
            )
            dw = native.to(weight.dtype) if wanted[1] else dw
        elif wanted[0] and stride == 1:
            dx = back_by_taps(dy, weight, padding)
        elif wanted[0]:
            dx = fold(product_back(rows, _matrix(weight)), ctx.shape, kernel, stride, padding)
        return dx, dw, db, None, None


def back_by_taps(dy: Tensor, weight: Tensor, padding: int) -> Tensor:
    """dy (N, O, H', W'), weight (O, C, k, k) of a convolution of stride 1 → the gradient of its
    input (N, C, H, W).

    One product for each of the k·k places of the filter, added up where they are made: `fold`
    writes and reads k·k times as much.
    """
    out, c, kernel, _ = weight.shape
    n, height, width = len(dy), *(side + kernel - 1 - 2 * padding for side in dy.shape[2:])
    seen = patches(dy, kernel, 1, kernel - 1 - padding).T.unflatten(0, (kernel * kernel, out))
    dx = dy.new_zeros(c, seen.shape[-1])
    for tap, part in enumerate(seen):
        i, j = divmod(kernel * kernel - 1 - tap, kernel)
        dx.addmm_(weight[:, :, i, j].T.to(dy.dtype), part)
    return dx.T.contiguous().view(n, height, width, c).permute(0, 3, 1, 2)


def _matrix(weight: Tensor) -> Tensor:
    """(O, C, k, k), channels last → (O, k·k·C) without a copy."""
    return weight.permute(0, 2, 3, 1).flatten(1)
