"""A baseline of ControlNet in the loop: it gives the whole output, not residuals, so what scales
residuals is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from zeroconv.backbones import Backbone, TextStates
from zeroconv.control import Net, is_additive
from zeroconv.control.compose import like
from zeroconv.control.net import changes_attention
from zeroconv.errors import UserError
from zeroconv.generation.control import Control

GUIDANCE = ("both", "cond")


def check_baselines(
    controls: Sequence[Control], guidance: str, connection_scales: Sequence[float] | str | None
) -> None:
    """Raise UserError where one of `controls` gives the whole output and something is asked that
    needs residuals. ControlNet-XS has a scale, and takes the residuals of others.
    """
    for control in controls:
        _check_attention(control)
    baselines = [
        control
        for control in controls
        if not is_additive(control.net) and not changes_attention(control.net)
    ]
    if not baselines:
        return
    control, kind = baselines[0], baselines[0].net.config["kind"]
    mixes = getattr(control.net, "takes_residuals", False)
    beside = [c for c in controls if c is not control and not (mixes and c.net.has_residuals)]
    if beside:
        why = (
            "takes no controls beside it but ControlNets; leave the others out."
            if mixes
            else "has no residuals to add to others'; give it alone."
        )
        raise UserError(f"a network of kind {kind} {why}")
    if guidance not in GUIDANCE:
        raise UserError(
            f"guidance {guidance!r} scales residuals, which {kind} has none of; choose both or "
            "cond."
        )
    asked = {
        "scale": control.scale != 1.0 and not mixes,
        "connection_scales": control.connection_scales is not None
        or (connection_scales is not None and len(controls) == 1),
        "curve": control.curve != "constant" and not mixes,
        "region": control.region is not None,
        "mode": control.mode is not None,
    }
    for name, wrong in asked.items():
        if wrong:
            raise UserError(
                f"{name} is about residuals, which a network of kind {kind} has none of; leave it "
                "out."
            )


def _check_attention(control: Control) -> None:
    """Raise UserError where a net that changes attention is asked for what needs residuals."""
    if not changes_attention(control.net):
        return
    kind = control.net.config["kind"]
    for name in ("connection_scales", "mode"):
        if getattr(control, name) is not None:
            raise UserError(
                f"{name} weighs the residuals of connections, which a network of kind {kind} has "
                "none of; leave it out, and use scale, curve, region or conditional_only."
            )


@dataclass
class Replacing:
    """A net that gives the whole output, at a step.

    both: whether the unconditional half sees the hint as well. scale, and pictures (N,), a scale a
    picture: read by those that take residuals.
    """

    net: Net
    embedding: tuple[Tensor, ...]
    both: bool
    scale: float = 1.0
    pictures: Tensor | None = None

    def predict(
        self,
        backbone: Backbone,
        z: Tensor,
        t: Tensor,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """The output (N or 2N, C, H, W); residuals: of others, one a connection."""
        twice = len(z) // len(self.embedding[0])
        embedding = tuple(torch.cat([part] * twice) for part in self.embedding)
        if not getattr(self.net, "takes_residuals", False):
            return self.net.predict_embedded(backbone, z, embedding, t, text)
        scale: float | Tensor = self.scale
        if self.pictures is not None:
            scale = scale * like(self.pictures, z).reshape(-1, 1, 1, 1)
        net: Any = self.net
        return net.predict_embedded(backbone, z, embedding, t, text, scale, residuals)

    def predict_halves(
        self,
        backbone: Backbone,
        z: Tensor,
        t: Tensor,
        uncond: TextStates,
        cond: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The outputs (N, C, H, W) without and with the prompt; residuals: of both, (2N, …)."""
        if self.both:
            text = TextStates.cat([uncond, cond])
            made = self.predict(backbone, torch.cat([z, z]), t, text, residuals)
            return cast(tuple[Tensor, Tensor], made.chunk(2))
        first, second = (_half(residuals, len(z), number) for number in (0, 1))
        without = backbone.predict(z, t, uncond, first)
        return without, self.predict(backbone, z, t, cond, second)


def _half(
    residuals: Sequence[Tensor | None] | None, n: int, number: int
) -> list[Tensor | None] | None:
    """The first or the second N rows; what has no rows is the same for both."""
    if residuals is None:
        return None
    part = slice(number * n, (number + 1) * n)
    return [r if r is None or not r.dim() else r[part] for r in residuals]
