"""The diffusion transformers that `benchmarks.speed.memory` reckons: shapes, and no weights.

Published configs, read from diffusers' defaults: FLUX.1 dev, Qwen-Image, Z-Image Turbo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zeroconv.backbones import TextStates
from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.flow.qwen import QwenBackbone
from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.flow.zimage import ZImageBackbone
from zeroconv.control import new_control
from zeroconv.control.transformer import TransformerControlNet
from zeroconv.control.zimage import BORROWED, ZImageControlNet
from zeroconv.layers.checkpointing import find_parts
from zeroconv.layers.fake import held_by
from zeroconv.training.recipes.control import TRANSFORMER_SHAPE
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.recipes.training import TrainingSettings


@dataclass(frozen=True)
class Shape:
    """A transformer and what its text encoder gives of a prompt."""

    kind: type[TransformerBackbone]
    transformer: str  # diffusers' class
    tokens: int  # of the longest prompt that is reckoned with
    width: int
    config: tuple[tuple[str, Any], ...] = ()
    pooled: int | None = None
    masked: bool = False


FAMILIES = ("flux", "qwen", "zimage")  # as their recipes' names begin
SHAPES = {
    "black-forest-labs/FLUX.1-dev": Shape(
        FluxBackbone, "FluxTransformer2DModel", 512, 4096, (("guidance_embeds", True),), pooled=768
    ),
    "Qwen/Qwen-Image": Shape(QwenBackbone, "QwenImageTransformer2DModel", 512, 3584, masked=True),
    "Tongyi-MAI/Z-Image-Turbo": Shape(
        ZImageBackbone, "ZImageTransformer2DModel", 512, 2560, masked=True
    ),
}


def make(recipe: Recipe) -> tuple[TransformerBackbone, TransformerControlNet]:
    """Base and control of a recipe, on the meta device."""
    import diffusers

    shape = SHAPES[recipe.base]
    with torch.device("meta"):
        transformer = getattr(diffusers, shape.transformer)(**dict(shape.config))
    backbone = shape.kind(transformer, name=recipe.base)
    chosen = {name: getattr(recipe.control, name) for name in TRANSFORMER_SHAPE}
    with torch.device("meta"):
        return backbone, new_control(backbone, recipe.data.condition, **chosen)


def held_frozen(denoiser: nn.Module, settings: TrainingSettings) -> int:
    """Bytes of the frozen weights on the card: of blocks that are moved, the largest."""
    everything = held_by(denoiser)
    if settings.offload != "group":
        return everything
    moved = [held_by(block) for block in find_parts([denoiser])[: settings.offload_blocks]]
    return everything - sum(moved) + max(moved)


def borrow_again_(control: Any, backbone: Any) -> None:
    """Let Z-Image's control read the base's tensors after they were replaced by fake ones."""
    if not isinstance(control, ZImageControlNet):
        return
    network, base = control.network, backbone.transformer
    for name in (name for name in BORROWED if isinstance(getattr(base, name), torch.Tensor)):
        if name in network.__dict__:
            network.__dict__[name] = getattr(base, name)


def states(base: str, n: int) -> TextStates:
    """Text states of n prompts of the length that is reckoned with."""
    shape = SHAPES[base]
    pooled = None if shape.pooled is None else torch.empty(n, shape.pooled)
    mask = torch.ones(n, shape.tokens, dtype=torch.bool) if shape.masked else None
    return TextStates(torch.empty(n, shape.tokens, shape.width), pooled, mask=mask)
