"""A baseline of ControlNet in the loop: it gives the whole output, not residuals, so what scales
residuals is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroconv.backbones import Backbone, TextStates
from zeroconv.control import Net
from zeroconv.errors import UserError
from zeroconv.generation.control import Control
from zeroconv.generation.guidance import combine

GUIDANCE = ("both", "cond")


def check_baselines(
    controls: Sequence[Control], guidance: str, connection_scales: Sequence[float] | str | None
) -> None:
    """Raise UserError where one of `controls` is a baseline and something is asked that needs
    residuals.
    """
    baselines = [control for control in controls if not control.net.has_residuals]
    if not baselines:
        return
    control, kind = baselines[0], baselines[0].net.config["kind"]
    if len(controls) > 1:
        raise UserError(
            f"a network of kind {kind} has no residuals to add to others'; give it alone."
        )
    if guidance not in GUIDANCE:
        raise UserError(
            f"guidance {guidance!r} scales residuals, which {kind} has none of; choose both or "
            "cond."
        )
    asked = {
        "scale": control.scale != 1.0,
        "connection_scales": control.connection_scales is not None or connection_scales is not None,
        "curve": control.curve != "constant",
        "region": control.region is not None,
        "mode": control.mode is not None,
    }
    for name, wrong in asked.items():
        if wrong:
            raise UserError(
                f"{name} is about residuals, which a network of kind {kind} has none of; leave it "
                "out."
            )


def predict_with_baseline(
    backbone: Backbone,
    z: Tensor,
    t: Tensor,
    cond: TextStates,
    uncond: TextStates | None,
    baseline: Net,
    embedding: tuple[Tensor, ...],
    both: bool,
    cfg: float,
    rescale: float = 0.0,
) -> Tensor:
    """The guided output (N, C, H, W); `both`: whether the unconditional half sees the hint as
    well.
    """
    if uncond is None:
        return baseline.predict_embedded(backbone, z, embedding, t, cond)
    if both:
        twice = tuple(torch.cat([part, part]) for part in embedding)
        text = TextStates.cat([uncond, cond])
        without, within = baseline.predict_embedded(
            backbone, torch.cat([z, z]), twice, t, text
        ).chunk(2)
        return combine(without, within, cfg, rescale)
    without = backbone.predict(z, t, uncond)
    within = baseline.predict_embedded(backbone, z, embedding, t, cond)
    return combine(without, within, cfg, rescale)
