"""How noise is added to latents and what a model predicts of it: discrete diffusion or flow
matching. Nothing else knows a noise schedule.

Training asks for `draw`, `noised`, `target` and `weights`; measuring asks for `spread`; whoever
wants the clean latent of one step asks for `clean`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroconv.backbones.process.diffusion import Diffusion
from zeroconv.backbones.process.flow import Flow
from zeroconv.backbones.process.kinds import is_flow
from zeroconv.backbones.process.levels import TIMESTEPS, draw_levels
from zeroconv.backbones.process.protocol import Process

__all__ = [
    "TIMESTEPS",
    "Diffusion",
    "Flow",
    "Process",
    "draw_levels",
    "is_flow",
    "make_process",
]


def make_process(config: Mapping[str, Any], name: str) -> Process:
    """Of a diffusers scheduler's config. Raises UserError, naming the model by `name`."""
    kind = Flow if is_flow(config) else Diffusion
    return kind.from_config(config, name)
