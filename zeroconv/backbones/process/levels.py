"""Noise levels of a training step, by a rule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeroconv.errors import UserError

TIMESTEPS = ("uniform", "cubic", "logit_normal", "mode")  # rules of `draw_levels`


def draw_levels(
    count: int, generator: torch.Generator, device: torch.device | str, rule: str
) -> Tensor:
    """Shares of the schedule (count,) in [0, 1], 1 is pure noise, by a rule of `TIMESTEPS`.

    "logit_normal": the sigmoid of a normal number, and "mode", with s = 1.29 (Esser et al. 2024,
    equations 19 and 20). "cubic": 1 − u³, which prefers noise (Mou et al. 2023, section 3.3).
    Raises UserError for an unknown rule.
    """
    if rule == "logit_normal":
        return torch.randn((count,), generator=generator, device=device).sigmoid()
    if rule not in TIMESTEPS:
        raise UserError(f"there is no rule {rule!r} for timesteps; choose {', '.join(TIMESTEPS)}.")
    u = torch.rand((count,), generator=generator, device=device)
    if rule == "cubic":
        return 1 - u**3
    if rule == "mode":
        return 1 - u - 1.29 * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
    return u
