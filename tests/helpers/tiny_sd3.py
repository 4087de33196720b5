"""A tiny Stable Diffusion 3 and ControlNets of it, with connections that are not zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.helpers.tiny_flow import randomised, tiny_vae
from zeroconv.backbones import TextStates
from zeroconv.backbones.flow.sd3 import SD3Backbone

CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 5,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 10,
    "pos_embed_max_size": 8,
}


def tiny_sd3(seed: int = 0, vae: bool = False, **changes: Any) -> SD3Backbone:
    """A transformer of 5 blocks, 16 wide, all weights random."""
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(seed)
    transformer = randomised(SD3Transformer2DModel(**{**CONFIG, **changes}))
    coder = tiny_vae(4, 2) if vae else None
    return SD3Backbone(transformer, coder, name="tiny-sd3")


def tiny_control(blocks: int, seed: int = 1, **changes: Any) -> Any:
    """diffusers' SD3ControlNetModel, every weight random: a zero would hide errors behind it."""
    from diffusers import SD3ControlNetModel

    torch.manual_seed(seed)
    config = {**CONFIG, "num_layers": blocks, **changes}
    return randomised(SD3ControlNetModel(**config))


def sd3_inputs(n: int = 2, seed: int = 2) -> tuple[Tensor, Tensor, Tensor, TextStates]:
    """z, hint latents, timesteps, text."""
    g = torch.Generator().manual_seed(seed)
    z, hint = torch.randn(2, n, 4, 8, 12, generator=g)
    t = 1000 * torch.rand(n, generator=g)
    text = TextStates(torch.randn(n, 7, 12, generator=g), torch.randn(n, 10, generator=g))
    return z, hint, t, text
