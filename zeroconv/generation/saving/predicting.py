"""The model's output in one step, with what earlier steps have left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.backbones.protocol import SplitBackbone
from zeroconv.generation.guidance import combine
from zeroconv.generation.joining import grouped, residuals_of_group
from zeroconv.generation.saving.deep import decode_keeping, decode_last, encode_first
from zeroconv.generation.saving.state import Kept, Saving

Acting = list[tuple[Any, float]]  # guides and the factors of their curves


def predict(
    saving: Saving,
    backbone: SplitBackbone,
    z: Tensor,
    t: Tensor,
    cond: TextStates,
    uncond: TextStates | None,
    acting: Acting,
    cfg: float,
    text: TextStates | None = None,
    rescale: float = 0.0,
) -> Tensor:
    """As `sampling.predict` of a UNet, (N, C, H, W), after `saving.begin`."""
    alike = uncond is cond and all(guide.uncond for guide, _ in acting)
    if uncond is None or alike or not saving.guided:
        return _output(saving, backbone, z, t, cond, cond, acting, False)
    if not saving.fresh_difference and saving.difference is not None:
        within = _output(saving, backbone, z, t, cond, cond, acting, False)
        return combine(within - saving.difference, within, cfg, rescale)
    text = text or TextStates.cat([uncond, cond])
    without, within = _output(saving, backbone, z, t, cond, text, acting, True).chunk(2)
    saving.difference = within - without
    return combine(without, within, cfg, rescale)


def _output(
    saving: Saving,
    backbone: SplitBackbone,
    z: Tensor,
    t: Tensor,
    cond: TextStates,
    text: TextStates,
    acting: Acting,
    halves: bool,
) -> Tensor:
    """Of both halves of guidance (2N, C, H, W), or of the conditional one (N, C, H, W). text: their
    states. cond: those of the conditional half.
    """
    x = torch.cat([z, z]) if halves else z
    reuse = not saving.fresh_deep and saving.deep is not None and len(saving.deep) >= len(x)
    deep = cast(UNetBackbone, backbone)
    if reuse:
        skips = encode_first(deep, x, t, text, saving.layers)
        skips = _controlled(saving, skips, acting, z, x, t, cond, text)
        return decode_last(deep, cast(Tensor, saving.deep)[-len(x) :], skips, t, text)
    skips = _controlled(saving, backbone.encode(x, t, text), acting, z, x, t, cond, text)
    if not saving.fast.reuses_deep:
        return backbone.decode(skips, t, text)
    output, saving.deep = decode_keeping(deep, skips, t, text, saving.layers)
    return output


def _controlled(
    saving: Saving,
    skips: list[Tensor],
    acting: Acting,
    z: Tensor,
    x: Tensor,
    t: Tensor,
    cond: TextStates,
    text: TextStates,
) -> list[Tensor]:
    """The first outputs of the encoder, or all, with the residuals of every guide added. A guide
    that leaves the unconditional half alone acts on the last N rows.
    """
    for uncond in (True, False):
        part = [(guide, factor) for guide, factor in acting if guide.uncond == uncond]
        rows = x if uncond else z
        # the very states, whose keys and values layers know again
        states = text if len(rows) == len(text) else cond
        for group in grouped(part):
            residuals = _residuals(saving, group, rows, t, states)
            skips = [
                _added(skip, residual) for skip, residual in zip(skips, residuals, strict=False)
            ]
    return skips


def _added(skip: Tensor, residual: Tensor) -> Tensor:
    if residual.dim() == 0 or len(residual) == len(skip):
        return skip + residual
    n = len(residual)
    return torch.cat([skip[:-n], skip[-n:] + residual])


def _residuals(
    saving: Saving, group: Acting, rows: Tensor, t: Tensor, text: TextStates
) -> Sequence[Tensor]:
    """Of an earlier step where they need not be new, scaled by what the curve has become."""
    key = tuple(id(guide) for guide, _ in group)
    factors = [factor for _, factor in group]
    kept = saving.residuals.get(key)
    if kept is not None and not saving.fresh_branch and kept.rows >= len(rows):
        cut = [r if r.dim() == 0 else r[-len(rows) :] for r in kept.residuals]
        if kept.factors == factors:
            return cut
        if len(group) == 1:  # linear in a guide's own factor, which is not 0 where it acts
            return [r * (factors[0] / kept.factors[0]) for r in cut]
    made = residuals_of_group(group, rows, t, text)
    saving.residuals[key] = Kept(made, factors, len(rows))
    return made
