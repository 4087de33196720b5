"""Every rule for where control acts and how strongly (paper, section 3.4).

All here are pure functions from names, numbers and connections to numbers; the sampler multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from zeroconv.backbones import Backbone, Connection
from zeroconv.errors import UserError


def _equal(connections: Sequence[Connection]) -> list[float]:
    return [1.0] * len(connections)


def _by_resolution(connections: Sequence[Connection]) -> list[float]:
    """w_i = H / h_i, the finest connection's size over the connection's own: 64 / h_i at 512 pixels
    (the paper). All blocks of a transformer have one size, so there it is 1.
    """
    finest = min((connection.scale for connection in connections), default=1)
    return [connection.scale / finest for connection in connections]


def _soft(connections: Sequence[Connection]) -> list[float]:
    """0.825^(n−1−i), as the released code has it for n = 13."""
    n = len(connections)
    return [0.825 ** (n - 1 - i) for i in range(n)]


@dataclass(frozen=True)
class Rule:
    """scales: one a connection, from the shallowest to the middle.

    uncond: whether the unconditional half of guidance gets the residuals too.
    """

    scales: Callable[[Sequence[Connection]], list[float]]
    uncond: bool


RULES = {
    "both": Rule(_equal, True),
    "cond": Rule(_equal, False),
    "resolution": Rule(_by_resolution, False),
    "guess": Rule(_soft, False),
    # A1111's control modes; "prompt" is "my prompt is more important"
    "balanced": Rule(_equal, True),
    "prompt": Rule(_soft, True),
    "control": Rule(_soft, False),
}
MODES = ("both", "cond", "resolution", "guess")  # of `generate(guidance=…)`
CONTROL_MODES = ("balanced", "prompt", "control")  # of `Control(mode=…)`


def check_mode(mode: str) -> str:
    """Raise UserError unless it is a name that `generate(guidance=…)` takes."""
    if mode not in MODES:
        raise UserError(f"There is no guidance {mode!r}; choose one of {', '.join(MODES)}.")
    return mode


def check_control_mode(mode: str) -> str:
    """Raise UserError unless it is one of A1111's modes."""
    if mode not in CONTROL_MODES:
        raise UserError(
            f"There is no control mode {mode!r}; choose one of {', '.join(CONTROL_MODES)}."
        )
    return mode


def find_rule(name: str) -> Rule:
    """The rule of a name of `RULES`. Raises UserError for any other."""
    if name not in RULES:
        raise UserError(
            f"There is no rule {name!r} for connection_scales; choose one of {', '.join(RULES)}."
        )
    return RULES[name]


def connection_scales(rule: str, connections: Sequence[Connection]) -> list[float]:
    """One number a connection by a rule's name, from the shallowest connection to the middle."""
    return find_rule(rule).scales(connections)


def controls_uncond(rule: str) -> bool:
    """Whether the unconditional half of guidance gets the residuals too."""
    return find_rule(rule).uncond


def chosen_scales(
    chosen_by_control: Sequence[float] | str | None,
    common: Sequence[float] | str | None,
    mode: str | None,
    guidance: str,
    connections: Sequence[Connection],
) -> list[float]:
    """One number a connection: a control's own, else those for all, else its mode's or guidance's.

    Raises UserError for a list that has not one number a connection.
    """
    chosen = next(x for x in (chosen_by_control, common, mode, guidance) if x is not None)
    scales = connection_scales(chosen, connections) if isinstance(chosen, str) else list(chosen)
    check_count(scales, connections)
    return scales


def check_count(scales: Sequence[float] | str | None, connections: Sequence[Connection]) -> None:
    """Raise UserError for a list that has not one number a connection."""
    if scales is not None and not isinstance(scales, str) and len(scales) != len(connections):
        raise UserError(
            f"{len(scales)} connection_scales were given, but there are {len(connections)} "
            "connections."
        )


def settled(backbone: Backbone, guidance: str | None, cfg: float | None) -> tuple[str, float]:
    """Guidance and its scale; None is the backbone's own."""
    usual = backbone.defaults
    return usual.guidance if guidance is None else guidance, usual.cfg if cfg is None else cfg


def combine(uncond: Tensor, cond: Tensor, cfg: float, rescale: float = 0.0) -> Tensor:
    """ε = ε_uc + β(ε_c − ε_uc), (N, C, H, W).

    rescale φ in [0, 1]: φ of it is scaled to the standard deviation of ε_c, picture by picture (Lin
    et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", equations 15 and 16).
    """
    return rescaled(uncond + cfg * (cond - uncond), cond, rescale)


def rescaled(guided: Tensor, cond: Tensor, rescale: float) -> Tensor:
    """The guided output, φ = `rescale` of it at the standard deviation of the conditional one."""
    if not rescale:
        return guided
    axes = tuple(range(1, cond.ndim))
    scaled = guided * (cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return rescale * scaled + (1 - rescale) * guided


# ---------------------------------------------------------------- along the schedule

CURVES = ("constant", "linear_down", "linear_up", "cosine_down", "cosine_up")

Curve = str | Sequence[tuple[float, float]]


def check_curve(curve: Curve) -> Curve:
    """Raise UserError unless it is a known name, or points (fraction, factor) of rising
    fractions.
    """
    if isinstance(curve, str):
        if curve not in CURVES:
            raise UserError(
                f"There is no curve {curve!r}; choose one of {', '.join(CURVES)}, or give points."
            )
        return curve

    places = [float(position) for position, _ in curve]
    numbers = [*places, *(float(factor) for _, factor in curve)]
    if not places or places != sorted(set(places)) or not all(map(math.isfinite, numbers)):
        raise UserError("A curve is a list of (fraction, factor) points whose fractions rise.")
    if places[0] < 0 or places[-1] > 1:
        raise UserError(
            f"A curve runs over fractions 0 to 1 of the schedule, not {places[0]} to {places[-1]}."
        )
    return curve


def factor_at(curve: Curve, fraction: float) -> float:
    """The factor on a control's scale at a fraction of the schedule in [0, 1].

    Points are joined by straight lines.
    """
    if isinstance(curve, str):
        smooth = 0.5 * (1 + math.cos(math.pi * fraction))
        named = {
            "linear_down": 1 - fraction,
            "linear_up": fraction,
            "cosine_down": smooth,
            "cosine_up": 1 - smooth,
        }
        return named.get(curve, 1.0)

    points = [(float(position), float(factor)) for position, factor in curve]
    for (a, first), (b, second) in pairwise(points):
        if a <= fraction <= b:
            return first + (second - first) * (fraction - a) / (b - a)
    return points[0][1] if fraction < points[0][0] else points[-1][1]
