"""What one denoising loop keeps from step to step, and when it is computed anew."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from zeroconv.backbones import Backbone, is_split
from zeroconv.control import is_additive
from zeroconv.generation.saving.deep import most_layers
from zeroconv.generation.saving.settings import EXACT, Fast
from zeroconv.layers.merging import Merging


@dataclass(frozen=True)
class Kept:
    """Residuals of some guides, the factors of their curves then, and the rows of latents."""

    residuals: list[Tensor]
    factors: list[float]
    rows: int


class Saving:
    """Of one batch. `begin` opens each step and decides what is computed in it."""

    def __init__(self, fast: Fast, layers: int, merging: Merging | None = None) -> None:
        self.fast, self.layers, self.merging = fast, layers, merging
        self.deep: Tensor | None = None  # (N or 2N, C, H, W)
        self.residuals: dict[Any, Kept] = {}
        self.difference: Tensor | None = None  # (N, C, H, W)
        self._latents: Tensor | None = None  # when the deep features were computed
        self._acting: list[Any] = []
        self._last = self._halves = 0  # the steps that computed deep features and the difference
        self._computed = -1  # how many have computed deep features since all was computed
        self.fresh_deep = self.fresh_branch = self.fresh_difference = self.guided = True

    def begin(self, step: int, steps: int, z: Tensor, acting: Sequence[Any]) -> None:
        """step: counted from 0. z: this step's latents. acting: the guides of this step."""
        fast, start = self.fast, step < self.fast.exact * steps
        if self.merging is not None:
            self.merging.step, self.merging.on = step, not start
        names = [id(guide) for guide in acting]
        changed = names != self._acting
        self._acting = names
        self.guided = step < fast.guidance_end * steps
        self.fresh_deep = (
            not fast.reuses_deep or start or changed or self.deep is None or self._due(step, z)
        )
        if self.fresh_deep:
            self._computed = 0 if changed or start else self._computed + 1
            self._last, self._latents = step, z
        new = self.fresh_deep and (changed or start)
        self.fresh_branch = new or (self.fresh_deep and self._computed % fast.branch == 0)
        if changed:
            self.residuals, self.difference = {}, None
        # with the deep features, which it needs of both halves
        turn = self.fresh_deep and (new or step - self._halves >= fast.difference)
        self.fresh_difference = turn or fast.difference == 1 or self.difference is None
        if self.fresh_difference:
            self._halves = step

    def attached(self, backbone: Any, guides: Sequence[Any]) -> AbstractContextManager[None]:
        """Inside, what this changes in layers is changed."""
        if self.merging is None:
            return nullcontext()
        return self.merging.attached(backbone.unet, *(guide.net for guide in guides))

    def copied(self) -> Saving:
        """The same decisions about the step that has begun, and nothing kept."""
        made = copy.copy(self)
        made.deep, made.difference, made.residuals = None, None, {}
        return made

    def _due(self, step: int, z: Tensor) -> bool:
        if self.fast.change > 0 and self._latents is not None:
            moved = (z - self._latents).norm() / self._latents.norm()
            return bool(moved > self.fast.change)
        return step - self._last >= self.fast.deep


def saving_for(
    fast: Fast,
    backbone: Backbone,
    guides: Sequence[Any],
    edits: bool,
    adapting: bool,
    seeds: Sequence[int] = (0,),
    size: tuple[int, int] = (0, 0),
) -> Saving | None:
    """For one batch of these guides, pictures of these seeds and latents of a size (h, w); None
    where everything is computed. A note says what a base or a control does not allow.
    """
    fast = replace(fast, vae=EXACT.vae)  # decodes, after the loop
    if fast == EXACT:
        return None
    reason = _reason(backbone, guides, edits, adapting)
    if reason:
        _note(f"fast is left out: {reason}.")
        return None
    layers = min(fast.layers, most_layers(backbone))
    if fast.reuses_deep and not layers:
        _note(f"fast: deep features of {backbone.name} are computed in every step: its UNet has no "
              "such blocks.")  # fmt: skip
        fast = replace(fast, deep=1, change=0.0)
    elif layers < fast.layers and fast.reuses_deep:
        _note(f"fast: layers is {fast.layers}, of which {backbone.name} has {layers}.")
    unet = cast(Any, backbone).unet
    if fast.merge and not Merging.layers(unet):
        _note(f"fast: merge is left out: {backbone.name} has no attention between positions.")
        fast = replace(fast, merge=0.0)
    if fast == EXACT:
        return None
    merging = Merging(fast.merge, seeds, size) if fast.merge else None
    return Saving(fast, max(layers, 1), merging)


def _reason(backbone: Backbone, guides: Sequence[Any], edits: bool, adapting: bool) -> str:
    if not is_split(backbone):
        return f"{backbone.name} is a transformer, and it is for UNets"
    if edits:
        return f"{backbone.name} edits pictures, in three evaluations a step"
    if adapting:
        return "image prompts and references change what the network attends to in every step"
    for guide in guides:
        name = guide.net.condition or "a control"
        if not is_additive(guide.net):
            return f"{name} is a baseline that changes the base's own layers"
        if guide.net.has_features:
            return f"{name} is an adapter whose features go into the encoder"
    return ""


def _note(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
