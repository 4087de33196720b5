"""The pictures that a report compares: with the control, without it, and through the VAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from zeroconv.backbones import Backbone
from zeroconv.baselines import Net
from zeroconv.evaluation.pairs import Pair
from zeroconv.generation import Control, generate
from zeroconv.stopping import stop_if_asked


@dataclass(frozen=True)
class Maker:
    """Makes pictures of the first `n` pairs, each with its prompt and its seed."""

    backbone: Backbone
    net: Net
    pairs: Sequence[Pair]
    texts: Sequence[str]
    seeds: Sequence[int]
    guidance: str
    options: dict[str, Any]  # of `generate`, with control and without

    def controlled(self, n: int, offset: int = 0) -> list[Image.Image]:
        """`offset` is added to every seed."""
        controls = [Control(self.net, [pair.hint for pair in self.pairs[:n]])]
        seeds = [seed + offset for seed in self.seeds[:n]]
        return generate(
            self.backbone,
            self.texts[:n],
            controls,
            guidance=self.guidance,
            seed=seeds,
            **self.options,
        )

    def uncontrolled(self, n: int) -> list[Image.Image]:
        if not n:
            return []
        return generate(self.backbone, self.texts[:n], seed=self.seeds[:n], **self.options)

    def uncontrolled_key(self, n: int) -> tuple:
        """What the pictures without control depend on."""
        return (
            "none",
            id(self.backbone),
            *self.texts[:n],
            *self.seeds[:n],
            *self.options.items(),
        )


def through_vae(backbone: Backbone, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures encoded and decoded again."""
    x = (
        torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        .permute(0, 3, 1, 2)
        .float()
        / 127.5
        - 1
    )
    decoded = []
    for part in x.split(32):
        stop_if_asked()
        decoded += list(
            backbone.decode_latents(
                backbone.latents_from_moments(backbone.encode_image(part), sample=False)
            )
        )
    return [
        Image.fromarray((d * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
        for d in decoded
    ]
