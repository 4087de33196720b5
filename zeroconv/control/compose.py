"""Several controls in one picture: how strongly each speaks, when, where, and for which half of guidance.

Residuals of several controls are summed and nothing else (paper, section 3.4 and figure 6). All here are pure functions
from numbers and connections to numbers; the sampler multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from zeroconv.backbones import Connection
from zeroconv.errors import UserError

# A1111's control modes → (soft weights?, does the unconditional half get the residuals?)
MODES = {"balanced": (False, True), "prompt": (True, True), "control": (True, False)}
CURVES = ("constant", "linear_down", "linear_up", "cosine_down", "cosine_up")

Curve = str | Sequence[tuple[float, float]]


def mode_weights(mode: str, connections: Sequence[Connection]) -> tuple[list[float], bool]:
    """Weights a connection and whether the unconditional half is controlled, of one of A1111's modes.

    balanced: 1 on both halves. prompt ("my prompt is more important"): 0.825^(n−1−i) on both. control ("ControlNet is
    more important"): 0.825^(n−1−i), on the conditional half alone. Raises UserError for another mode.
    """
    if mode not in MODES:
        raise UserError(f"There is no control mode {mode!r}; choose one of {', '.join(MODES)}.")
    soft, both = MODES[mode]
    n = len(connections)
    return [0.825 ** (n - 1 - i) if soft else 1.0 for i in range(n)], both


def check_curve(curve: Curve) -> Curve:
    """Raise UserError unless it is a known name, or points (fraction, factor) of rising fractions in [0, 1]."""
    if isinstance(curve, str):
        if curve not in CURVES:
            raise UserError(f"There is no weight curve {curve!r}; choose one of {', '.join(CURVES)}, or give points.")
        return curve
    places = [float(place) for place, _ in curve]
    numbers = [*places, *(float(factor) for _, factor in curve)]
    if not places or places != sorted(set(places)) or not all(map(math.isfinite, numbers)):
        raise UserError("A weight curve is a list of (fraction, factor) points whose fractions rise.")
    if places[0] < 0 or places[-1] > 1:
        raise UserError(f"A weight curve runs over fractions 0 to 1 of the schedule, not {places[0]} to {places[-1]}.")
    return curve


def weight_at(curve: Curve, fraction: float) -> float:
    """The factor on a control's weight at a fraction of the schedule in [0, 1]; points are joined by straight lines."""
    if isinstance(curve, str):
        smooth = 0.5 * (1 + math.cos(math.pi * fraction))
        named = {"linear_down": 1 - fraction, "linear_up": fraction, "cosine_down": smooth, "cosine_up": 1 - smooth}
        return named.get(curve, 1.0)
    points = [(float(place), float(factor)) for place, factor in curve]
    for (a, first), (b, second) in pairwise(points):
        if a <= fraction <= b:
            return first + (second - first) * (fraction - a) / (b - a)
    return points[0][1] if fraction < points[0][0] else points[-1][1]


def masks_at(mask: Tensor, connections: Sequence[Connection], size: tuple[int, int]) -> list[Tensor]:
    """A mask (N, 1, H, W) in [0, 1] in pixels → its means over the cells of each connection, (N, 1, h_i, w_i).

    `size`: of the latents (h, w). A cell that lies half inside gets half of the residual.
    """
    shapes = [(math.ceil(size[0] / c.scale), math.ceil(size[1] / c.scale)) for c in connections]
    small = {shape: nn.functional.adaptive_avg_pool2d(mask, shape) for shape in set(shapes)}
    return [small[shape] for shape in shapes]


def weigh(
    residuals: Sequence[Tensor],
    weights: Sequence[float],
    factor: float = 1.0,
    pictures: Tensor | None = None,
    masks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Residuals (N, C_i, h_i, w_i), or () where a control gives none, each times its connection's weight, the curve's
    factor, each picture's own weight (N,), and its mask (N, 1, h_i, w_i)."""
    out = []
    for i, (residual, weight) in enumerate(zip(residuals, weights, strict=True)):
        r = weight * factor * residual
        if r.dim() and pictures is not None:
            r = r * _like(pictures, r)[:, None, None, None]
        if r.dim() and masks is not None:
            r = r * _like(masks[i], r)
        out.append(r)
    return out


def _like(value: Tensor, residual: Tensor) -> Tensor:
    """As many as the residual has: where both halves of guidance are controlled, the same twice."""
    value = value.to(residual.device, residual.dtype)
    return value if len(value) in (1, len(residual)) else torch.cat([value] * (len(residual) // len(value)))
