"""Hints of a Union control that go through it in one call, and features of T2I-Adapters.

Several controls are a list whose residuals add up. Two kinds differ: hints of one Union are read
together, as it was trained, and an adapter's features are added within the frozen encoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from zeroconv.backbones import TextStates
from zeroconv.control import ResidualNet
from zeroconv.control.compose import add_up, like, scaled
from zeroconv.errors import UserError

if TYPE_CHECKING:
    from zeroconv.generation.control import Control
    from zeroconv.generation.sampling import Guide

Acting = list[tuple["Guide", float]]  # guides and the factors of their curves


def network_of(net: Any) -> int | None:
    """The same number for all that share a Union's weights; None for any other net."""
    return getattr(net, "network_id", None)


def grouped(acting: Acting) -> list[Acting]:
    """Guides that go through their network together: hints of one Union where they act on the same
    region with the same scales of connections. Any other goes alone.
    """
    groups: list[Acting] = []
    for one in acting:
        group = next((g for g in groups if _joins(g[0][0], one[0])), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return groups


def _joins(a: Guide, b: Guide) -> bool:
    if network_of(a.net) is None or network_of(a.net) != network_of(b.net):
        return False
    if list(a.scales) != list(b.scales) or (a.masks is None) != (b.masks is None):
        return False
    pairs = zip(a.masks or (), b.masks or (), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def residuals_of_group(group: Acting, z: Tensor, t: Tensor, text: TextStates) -> list[Tensor]:
    """The residuals of one guide, or of several hints of one Union, scaled, at latents z (N or 2N,
    C, H, W); one for each connection of the net.

    Of several each hint's own scale, and the factor of its curve, is applied where the Union reads
    it, as in diffusers; scales of connections and the region apply to what it gives.
    """
    if len(group) == 1:
        return residuals_of(*group[0], z, t, text)
    hints = []
    z = _latents(group[0][0].net, z)
    for guide, factor in group:
        embedding = _repeat(guide.embedding, len(z))
        scale: float | Tensor = guide.scale * factor
        if guide.pictures is not None:
            scale = scale * like(guide.pictures, embedding).reshape(-1, 1, 1, 1)
        hints.append((cast(Any, guide.net).checked_kind(), embedding, scale))
    first = group[0][0]
    residuals = cast(Any, first.net).forward_several(z, hints, t, text)
    return scaled(residuals, first.scales, masks=first.masks)


def residuals_of(
    guide: Guide, factor: float, z: Tensor, t: Tensor, text: TextStates
) -> list[Tensor]:
    """A guide's residuals, scaled, at latents z (N or 2N, C, H, W); one for each connection of its
    net.
    """
    embedding, z = _repeat(guide.embedding, len(z)), _latents(guide.net, z)
    residuals = cast(ResidualNet, guide.net).forward_embedded(z, embedding, t, text)
    return scaled(residuals, guide.scales, factor * guide.scale, guide.pictures, guide.masks)


def _latents(net: Any, z: Tensor) -> Tensor:
    """Without what a base for inpainting or editing reads beside its latent."""
    channels = getattr(net, "latent_channels", None) or net.config.get("in_channels", z.shape[1])
    return z[:, :channels]


def _repeat(embedding: Any, n: int) -> Any:
    """As many rows as the latents have."""
    if isinstance(embedding, tuple):
        return tuple(_repeat(part, n) for part in embedding)
    return embedding.repeat(n // len(embedding), *[1] * (embedding.dim() - 1))


def features_of(
    acting: Acting, z: Tensor, t: Tensor, text: TextStates, halves: bool
) -> list[Tensor | None] | None:
    """What adapters add within the encoder, one a level and one for the middle; None where none
    acts. halves: for both halves of guidance at once, (2N, C, H, W), the first of which is the
    unconditional one: an adapter that leaves it alone has zeros there.
    """
    total: list[Tensor | None] | None = None
    for guide, factor in acting:
        x = torch.cat([z, z]) if halves and guide.uncond else z
        made: list[Tensor | None] = [*residuals_of(guide, factor, x, t, text)]
        if halves and not guide.uncond:
            made = [None if r is None else torch.cat([torch.zeros_like(r), r]) for r in made]
        if total is not None:
            length = max(len(total), len(made))
            total, made = (part + [None] * (length - len(part)) for part in (total, made))
        total = add_up(total, made)
    return total


def check_unions(controls: Sequence[Control]) -> None:
    """Raise UserError for a Union without a kind; a note where hints of one Union differ in what
    goes for all of a call, so that they go through it one by one.
    """
    kept: dict[int, tuple[Any, ...]] = {}
    for control in controls:
        network = network_of(control.net)
        if network is None:
            continue
        cast(Any, control.net).checked_kind()
        common = (control.connection_scales, control.mode, control.conditional_only)
        known = kept.setdefault(network, (*common, control.region))
        if known[:3] != common or known[3] is not control.region:
            warnings.warn(
                "the hints of one Union control differ in region, connection_scales, mode or "
                "conditional_only, so they go through it one by one and their residuals are "
                "summed; give them the same to have them read together.",
                stacklevel=4,  # of the caller of `generate`
            )
            return


def bind_kind(net: Any, kind: str | int | None) -> Any:
    """The net for hints of a kind, where one is given. Raises UserError for a net without kinds."""
    if kind is None:
        return net
    if not hasattr(net, "of_kind"):
        raise UserError(
            f"kind={kind!r} is given, but only a Union control has kinds; leave it out for this "
            "control."
        )
    return net.of_kind(kind)
