"""Tiny IP-Adapters in the published layouts, with random weights, and an image encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.helpers.tiny import seeded
from zeroconv.layers.attention import attentions

PROJECTED, HIDDEN, SIDE = 24, 32, 32  # of the image encoder


@seeded
def tiny_vision(**options):
    """A CLIPVisionModelWithProjection of four patches and the class token."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = {
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "projection_dim": PROJECTED,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
    }
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**{**config, **options}))


def tiny_ip_adapter(form: str, backbone, seed: int = 11) -> dict[str, dict[str, Tensor]]:
    """The two dicts of a file of form base, plus or full, under the published names."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    width = backbone.unet.config.cross_attention_dim
    image = {
        "base": lambda: {
            "proj.weight": random(4 * width, PROJECTED),
            "proj.bias": random(4 * width),
            "norm.weight": 1 + random(width),
            "norm.bias": random(width),
        },
        "full": lambda: {
            "proj.0.weight": random(HIDDEN, HIDDEN),
            "proj.0.bias": random(HIDDEN),
            "proj.2.weight": random(width, HIDDEN),
            "proj.2.bias": random(width),
            "proj.3.weight": 1 + random(width),
            "proj.3.bias": random(width),
        },
        "plus": lambda: resampler(random, width),
    }[form]()
    attention = {}
    for i, (name, layer) in enumerate(attentions(backbone.unet).items()):
        if name.endswith("attn2"):
            for part in ("k", "v"):
                attention[f"{i}.to_{part}_ip.weight"] = random(layer.to_k.out_features, width)
    return {"image_proj": image, "ip_adapter": attention}


def resampler(random, width: int, inner: int = 64, tokens: int = 5, layers: int = 4):
    state = {"latents": random(1, tokens, inner)}
    for name, (rows, columns) in {"proj_in": (inner, HIDDEN), "proj_out": (width, inner)}.items():
        state |= {f"{name}.weight": random(rows, columns), f"{name}.bias": random(rows)}
    state |= {"norm_out.weight": 1 + random(width), "norm_out.bias": random(width)}
    for i in range(layers):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            state[f"layers.{i}.{norm}.weight"] = 1 + random(inner)
            state[f"layers.{i}.{norm}.bias"] = random(inner)
        state[f"layers.{i}.0.to_q.weight"] = random(inner, inner)
        state[f"layers.{i}.0.to_kv.weight"] = random(2 * inner, inner)
        state[f"layers.{i}.0.to_out.weight"] = random(inner, inner)
        state[f"layers.{i}.1.1.weight"] = random(4 * inner, inner)
        state[f"layers.{i}.1.3.weight"] = random(inner, 4 * inner)
    return state
