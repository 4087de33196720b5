"""The published sizes, built on the meta device: shapes and names without memory."""

from __future__ import annotations

import torch

from zeroconv.backbones import UNetBackbone
from zeroconv.backbones.unet import DEFAULT_SCHEDULER

SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD21 = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "upcast_attention": True,
}


def meta_backbone(config: dict, prediction_type: str = "epsilon") -> UNetBackbone:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    return UNetBackbone(unet, scheduler_config={**DEFAULT_SCHEDULER, "prediction_type": prediction_type}, name="sd")
