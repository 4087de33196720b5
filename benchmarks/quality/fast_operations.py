"""Operations of a denoising loop at Stable Diffusion 1.5's size, counted without computing them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.memory import SD15, UNETS
from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.control import ControlNet
from zeroconv.generation.sampling import Guide
from zeroconv.generation.saving import Fast, predict
from zeroconv.generation.saving.state import Saving

LATENT, TOKENS, WIDTH = 64, 77, 768  # of 512 px, and of the text


class Loop:
    """One picture of 512 px with a ControlNet on both halves of guidance. All tensors are on the
    meta device; torch counts products of matrices and convolutions.
    """

    def __init__(self) -> None:
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            self.backbone = UNetBackbone(UNet2DConditionModel(**UNETS[SD15]))
            net: Any = ControlNet.from_backbone(self.backbone).to("meta")
            self.z = torch.empty(1, 4, LATENT, LATENT)
            self.cond = TextStates(torch.empty(1, TOKENS, WIDTH))
            self.uncond = TextStates(torch.empty(1, TOKENS, WIDTH))
            first = self.backbone.connections[0].channels
            embedding = torch.empty(1, first, LATENT, LATENT)
        scales = [1.0] * len(self.backbone.connections)
        self.guide = Guide(net, embedding.expand(1, -1, -1, -1), scales, 0.0, 1.0, uncond=True)
        self.counted: dict[Any, tuple[int, dict[str, Any]]] = {}

    def count(self, fast: Fast, steps: int) -> int:
        """Of `steps` calls of the networks, 2 a multiplication and addition."""
        saving = Saving(fast, fast.layers)
        return sum(self._step(saving, step, steps) for step in range(steps))

    def _step(self, saving: Saving, step: int, steps: int) -> int:
        """Steps that compute the same are counted once."""
        saving.begin(step, steps, self.z, [self.guide])
        kept = [None if saving.deep is None else len(saving.deep)]
        kept += [entry.rows for entry in saving.residuals.values()]
        flags = (saving.guided, saving.fresh_deep, saving.fresh_branch, saving.fresh_difference)
        key = (*flags, saving.difference is None, saving.layers, saving.fast.reuses_deep, *kept)
        if key not in self.counted:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                t, acting = torch.empty((), device="meta"), [(self.guide, 1.0)]
                predict(saving, self.backbone, self.z, t, self.cond, self.uncond, acting, 7.5)
            left = {"deep": saving.deep, "difference": saving.difference}
            left["residuals"] = dict(saving.residuals)
            self.counted[key] = counter.get_total_flops(), left
        operations, left = self.counted[key]
        vars(saving).update(left, residuals=dict(left["residuals"]))
        return operations
