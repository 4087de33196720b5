"""Queries and keys of a diffusion transformer in one operation: RMS norm, then rotary embedding.

As torch and diffusers compute it, each writes and reads a tensor as large as the tokens about ten
times, and keeps four of them for the backward pass. Here a few rows at a time stay in the
processor's cache, and only the input is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

NUMBERS = 2**17  # at a time, half a MiB in float32


def angles(cos: Tensor, sin: Tensor) -> Tensor:
    """Tables (S, D) of cosines and sines, each number twice as diffusers has them → e^{iθ}
    (S, D/2), complex.
    """
    return torch.complex(cos[:, ::2].contiguous(), sin[:, ::2].contiguous())


def normed_and_turned(
    streams: Sequence[tuple[Tensor, Tensor]], turns: Tensor, eps: float
) -> Tensor:
    """Several streams of tokens, each (x (N, L, H, D), weight (D,)), float32 → (N, ΣL, H, D): each
    head's numbers divided by their root mean square (Zhang & Sennrich 2019), times the weight, and
    turned by `turns` (ΣL, D/2), complex (Su et al. 2021).
    """
    flat = [tensor for stream in streams for tensor in stream]
    return _NormedAndTurned.apply(turns, eps, *flat)


class _NormedAndTurned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, turns: Tensor, eps: float, *flat: Tensor) -> Tensor:
        xs, weights = flat[::2], flat[1::2]
        n, _, heads, width = xs[0].shape
        out = xs[0].new_empty(n, sum(x.shape[1] for x in xs), heads, width)
        scales, start = [], 0
        for x, weight in zip(xs, weights, strict=True):
            scale = x.new_empty(*x.shape[:3], 1)
            for rows in _rows(x):
                part, target = x[:, rows], out[:, start + rows.start : start + rows.stop]
                square = torch.linalg.vector_norm(part, dim=-1, keepdim=True).square_()
                torch.rsqrt(square.div_(width).add_(eps), out=square)
                scale[:, rows] = square
                torch.mul(part, square, out=target)
                target.mul_(weight)
                _pairs(target).mul_(_turns(turns, start, rows))
            scales.append(scale)
            start += x.shape[1]
        ctx.save_for_backward(turns, *flat, *scales)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # type: ignore[override]
        turns, *saved = ctx.saved_tensors
        back = turns.conj().resolve_conj()
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        count = len(saved) // 3
        xs, weights, scales = saved[: 2 * count : 2], saved[1 : 2 * count : 2], saved[2 * count :]
        grads: list[Tensor | None] = []
        start = 0
        for i, (x, weight, scale) in enumerate(zip(xs, weights, scales, strict=True)):
            wanted = ctx.needs_input_grad[2 + 2 * i], ctx.needs_input_grad[3 + 2 * i]
            grads += _back(dy, x, weight, scale, back, start, wanted)
            start += x.shape[1]
        return None, None, *grads


def _back(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    back: Tensor,
    start: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a stream and of its weight. back: the turns the other way round."""
    dx = torch.empty_like(x) if wanted[0] else None
    dw = torch.zeros_like(weight) if wanted[1] else None
    if not any(wanted):
        return None, None
    for rows in _rows(x):
        part = dy[:, start + rows.start : start + rows.stop]
        grad = torch.view_as_real(_pairs(part) * _turns(back, start, rows)).flatten(-2)
        normed = x[:, rows] * scale[:, rows]
        if dw is not None:
            dw += (grad * normed).sum((0, 1, 2))
        if dx is not None:
            grad.mul_(weight)
            # d/dx of x / rms(x): what points along x takes no part
            along = (grad * normed).mean(-1, keepdim=True)
            torch.addcmul(grad, normed, along, value=-1, out=dx[:, rows])
            dx[:, rows].mul_(scale[:, rows])
    return dx, dw


def _rows(x: Tensor) -> Iterator[slice]:
    """Pieces of the tokens of x (N, L, H, D)."""
    step = max(1, NUMBERS // (len(x) * x.shape[2] * x.shape[3]))
    for begin in range(0, x.shape[1], step):
        yield slice(begin, min(begin + step, x.shape[1]))


def _pairs(x: Tensor) -> Tensor:
    """(…, D) → a view (…, D/2) of complex numbers."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _turns(turns: Tensor, start: int, rows: slice) -> Tensor:
    return turns[None, start + rows.start : start + rows.stop, None]
