"""Configs of transformers' ControlNets from the shapes of their weights (diffusers' names).

What leaves no trace in shapes is the base's, or without one that of the published bases.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from zeroconv.checkpoints.flow.infer import AXES, first_size, size
from zeroconv.checkpoints.flow.layout import count
from zeroconv.errors import UserError

State = Mapping[str, Tensor]
Config = dict[str, Any]

_TEXT = "time_text_embed.text_embedder.linear_1"


def flux_control(state: State, base: Config, where: object) -> Config:
    width, channels = size(state, "x_embedder.weight", 2)
    head = first_size(state, ".attn.norm_q.weight")
    config = {
        "in_channels": channels,
        "num_layers": count(state, "transformer_blocks."),
        "num_single_layers": count(state, "single_transformer_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": size(state, "context_embedder.weight", 2)[1],
        "pooled_projection_dim": size(state, f"{_TEXT}.weight", 2)[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in state,
        "axes_dims_rope": _axes(head, base, where),
        "num_mode": None,
        "conditioning_embedding_channels": None,
    }
    if "controlnet_mode_embedder.weight" in state:
        config["num_mode"] = size(state, "controlnet_mode_embedder.weight", 2)[0]
    if "input_hint_block.conv_out.weight" in state:
        config["conditioning_embedding_channels"] = size(
            state, "input_hint_block.conv_out.weight", 4
        )[0]
    return config


def chroma_control(state: State, base: Config, where: object) -> Config:
    """Of zeroconv's own, which are the only ones; the base's blocks are those of the published."""
    width, channels = size(state, "x_embedder.weight", 2)
    head = first_size(state, ".attn.norm_q.weight")
    hidden, reads = size(state, "distilled_guidance_layer.in_proj.weight", 2)
    return {
        "in_channels": channels,
        "num_layers": count(state, "transformer_blocks."),
        "base_layers": base.get("num_layers", 19),
        "base_single_layers": base.get("num_single_layers", 38),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": size(state, "context_embedder.weight", 2)[1],
        "axes_dims_rope": _axes(head, base, where),
        "approximator_num_channels": reads,
        "approximator_hidden_dim": hidden,
        "approximator_layers": count(state, "distilled_guidance_layer.layers."),
    }


def sd3_control(state: State, base: Config, where: object) -> Config:
    width, reads, patch, _ = size(state, "pos_embed_input.proj.weight", 4)
    placed = "pos_embed.proj.weight" in state
    channels = size(state, "pos_embed.proj.weight", 4)[1] if placed else base.get("in_channels", 16)
    normed = "transformer_blocks.0.attn.norm_q.weight" in state
    head = size(state, "transformer_blocks.0.attn.norm_q.weight")[0] if normed else 0
    head = head or base.get("attention_head_dim", 64)
    blocks = count(state, "transformer_blocks.")
    text = size(state, "context_embedder.weight", 2) if "context_embedder.weight" in state else None
    extra = reads - channels
    config = {
        "sample_size": base.get("sample_size", 128),
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": blocks,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": text and text[1],
        "caption_projection_dim": text[0] if text else width,
        "pooled_projection_dim": size(state, f"{_TEXT}.weight", 2)[1],
        "extra_conditioning_channels": extra,
        "dual_attention_layers": [
            i for i in range(blocks) if f"transformer_blocks.{i}.attn2.to_q.weight" in state
        ],
        "qk_norm": "rms_norm" if normed else None,
        "use_pos_embed": placed,
        "pos_embed_type": "sincos" if placed else None,
        "force_zeros_for_pooled_projection": text is not None,
    }
    if placed:
        config["pos_embed_max_size"] = math.isqrt(size(state, "pos_embed.pos_embed", 3)[1])
    if text is not None:
        warnings.warn(
            f"{where} does not say whether it reads pooled text; it is taken to read none, as the "
            "published ones that read prompts: a folder whose config.json has "
            "force_zeros_for_pooled_projection decides.",
            stacklevel=4,
        )
    return config


def qwen_control(state: State, base: Config, where: object) -> Config:
    width, channels = size(state, "img_in.weight", 2)
    head = first_size(state, ".attn.norm_q.weight")
    return {
        "in_channels": channels,
        "out_channels": base.get("out_channels", channels // 4),
        "num_layers": count(state, "transformer_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": size(state, "txt_in.weight", 2)[1],
        "axes_dims_rope": _axes(head, base, where),
        "extra_condition_channels": size(state, "controlnet_x_embedder.weight", 2)[1] - channels,
    }


def zimage_control(state: State, base: Config, where: object) -> Config:
    """The three published versions differ in how they use the noise refiner: not (1), the control's
    own layers (2.0), or its own blocks, which are joined to the chain (2.1).
    """
    width, patch = size(state, "control_all_x_embedder.2-1.weight", 2)
    head = size(state, "control_layers.0.attention.norm_q.weight")[0]
    channels, layers = patch // 4, count(state, "control_layers.")
    refiners = count(state, "control_noise_refiner.") or base.get("n_refiner_layers", 2)
    every, refiner = base.get("n_layers", 30), None
    before = state.get("control_noise_refiner.0.before_proj.weight")
    if before is not None and bool(before.any()):
        refiner = "control_noise_refiner"
    elif before is not None or channels != base.get("in_channels", 16):
        refiner = "control_layers"
    if layers > every:
        raise UserError(f"{where} has {layers} layers, and its base only {every}.")
    return {
        "control_layers_places": [i * (every // layers) for i in range(layers)],
        "control_refiner_layers_places": list(range(refiners)),
        "control_in_dim": channels,
        "add_control_noise_refiner": refiner,
        "dim": width,
        "n_refiner_layers": refiners,
        "n_heads": width // head,
        "n_kv_heads": size(state, "control_layers.0.attention.to_k.weight", 2)[0] // head,
    }


CONFIGS: dict[str, Callable[[State, Config, object], Config]] = {
    "FluxControlNetModel": flux_control,
    "ChromaControlNetModel": chroma_control,
    "SD3ControlNetModel": sd3_control,
    "QwenImageControlNetModel": qwen_control,
    "ZImageControlNetModel": zimage_control,
}


def _axes(head: int, base: Config, where: object) -> list[int]:
    axes = list(base.get("axes_dims_rope") or AXES)
    if sum(axes) != head:
        raise UserError(
            f"{where} has heads of {head} channels, where its base's have {sum(axes)}; it was made "
            "for another base."
        )
    return axes
