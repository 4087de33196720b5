"""Configs of diffusion transformers, and of their text encoders, from the shapes of their weights
(diffusers' and transformers' names throughout).

What leaves no trace in shapes is that of the published models: FLUX.1's and Qwen-Image's positions
for heads of 128 channels, Z-Image's, and the numbers of the language models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from zeroconv.checkpoints.flow.layout import count
from zeroconv.errors import UserError

State = Mapping[str, Tensor]
Config = dict[str, Any]

HEAD = 128  # channels of a head of FLUX.1, Qwen-Image and Z-Image, and of the language models
AXES = (16, 56, 56)  # of them for the number of a picture, rows and columns
_SD3_HEAD = 64


def flux_config(state: State) -> Config:
    width, channels = size(state, "x_embedder.weight", 2)
    out = size(state, "proj_out.weight", 2)[0]
    head = first_size(state, ".attn.norm_q.weight")
    _check_positions(head, AXES, "FLUX.1")
    return {
        "in_channels": channels,
        "out_channels": None if out == channels else out,
        "num_layers": count(state, "transformer_blocks."),
        "num_single_layers": count(state, "single_transformer_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": size(state, "context_embedder.weight", 2)[1],
        "pooled_projection_dim": size(state, f"{_TEXT}.weight", 2)[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in state,
        "axes_dims_rope": AXES,
    }


def chroma_config(state: State) -> Config:
    """The network that makes the modulation has its own widths and number of layers."""
    width, channels = size(state, "x_embedder.weight", 2)
    head = first_size(state, ".attn.norm_q.weight")
    _check_positions(head, AXES, "Chroma")
    hidden, reads = size(state, "distilled_guidance_layer.in_proj.weight", 2)
    return {
        "in_channels": channels,
        "out_channels": None,
        "num_layers": count(state, "transformer_blocks."),
        "num_single_layers": count(state, "single_transformer_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": size(state, "context_embedder.weight", 2)[1],
        "axes_dims_rope": AXES,
        "approximator_num_channels": reads,
        "approximator_hidden_dim": hidden,
        "approximator_layers": count(state, "distilled_guidance_layer.layers."),
    }


_TEXT = "time_text_embed.text_embedder.linear_1"


def sd3_config(state: State) -> Config:
    width, channels, patch, _ = size(state, "pos_embed.proj.weight", 4)
    side = math.isqrt(size(state, "pos_embed.pos_embed", 3)[1])
    normed = "transformer_blocks.0.attn.norm_q.weight" in state
    head = size(state, "transformer_blocks.0.attn.norm_q.weight")[0] if normed else _SD3_HEAD
    blocks = count(state, "transformer_blocks.")
    dual = [i for i in range(blocks) if f"transformer_blocks.{i}.attn2.to_q.weight" in state]
    return {
        "sample_size": 128,
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": size(state, "proj_out.weight", 2)[0] // patch**2,
        "num_layers": blocks,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": size(state, "context_embedder.weight", 2)[1],
        "caption_projection_dim": size(state, "context_embedder.weight", 2)[0],
        "pooled_projection_dim": size(state, f"{_TEXT}.weight", 2)[1],
        "pos_embed_max_size": side,
        "dual_attention_layers": dual,
        "qk_norm": "rms_norm" if normed else None,
    }


def qwen_config(state: State) -> Config:
    width, channels = size(state, "img_in.weight", 2)
    head = first_size(state, ".attn.norm_q.weight")
    _check_positions(head, AXES, "Qwen-Image")
    return {
        "in_channels": channels,
        "out_channels": size(state, "proj_out.weight", 2)[0] // 4,
        "num_layers": count(state, "transformer_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": size(state, "txt_in.weight", 2)[1],
        "axes_dims_rope": AXES,
    }


def zimage_config(state: State) -> Config:
    width, patch = size(state, "all_x_embedder.2-1.weight", 2)
    head = size(state, "layers.0.attention.norm_q.weight")[0]
    axes = [32, 48, 48]
    _check_positions(head, axes, "Z-Image")
    return {
        "in_channels": patch // 4,
        "dim": width,
        "n_layers": count(state, "layers."),
        "n_refiner_layers": count(state, "noise_refiner."),
        "n_heads": width // head,
        "n_kv_heads": size(state, "layers.0.attention.to_k.weight", 2)[0] // head,
        "cap_feat_dim": size(state, "cap_embedder.1.weight", 2)[1],
        "axes_dims": axes,
        "axes_lens": [1024, 512, 512],
    }


# by the class of the transformer
CONFIGS: dict[str, Callable[[State], Config]] = {
    "FluxTransformer2DModel": flux_config,
    "ChromaTransformer2DModel": chroma_config,
    "SD3Transformer2DModel": sd3_config,
    "QwenImageTransformer2DModel": qwen_config,
    "ZImageTransformer2DModel": zimage_config,
}


def t5_config(state: State) -> Config:
    """Of the encoder of T5 1.1, whose layers have a gate."""
    block = "encoder.block.0.layer."
    table = "shared.weight" if "shared.weight" in state else "encoder.embed_tokens.weight"
    words, width = size(state, table, 2)
    bias = f"{block}0.SelfAttention.relative_attention_bias.weight"
    buckets, heads = size(state, bias, 2)
    return {
        "model_type": "t5",
        "vocab_size": words,
        "d_model": width,
        "d_kv": size(state, f"{block}0.SelfAttention.q.weight", 2)[0] // heads,
        "d_ff": size(state, f"{block}1.DenseReluDense.wi_0.weight", 2)[0],
        "num_layers": count(state, "encoder.block."),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "use_cache": False,
    }


def qwen3_config(state: State) -> Config:
    head = size(state, "layers.0.self_attn.q_norm.weight")[0]
    return {**_language(state, head), "model_type": "qwen3", "head_dim": head}


def qwen_vl_config(state: State) -> Config:
    """Of Qwen2.5-VL's language model: three sections of each head's channels for its positions."""
    if size(state, "layers.0.self_attn.q_proj.weight", 2)[0] % HEAD:
        raise UserError(
            f"the weights of the text encoder have no heads of {HEAD} channels, as Qwen2.5-VL has; "
            "give its folder, whose config.json says what they have."
        )
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = {**_language(state, HEAD), "rope_parameters": rope}
    return {"model_type": "qwen2_5_vl", "text_config": config}


def _language(state: State, head: int) -> Config:
    words, width = size(state, "embed_tokens.weight", 2)
    layer = "layers.0."
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": size(state, f"{layer}mlp.gate_proj.weight", 2)[0],
        "num_hidden_layers": count(state, "layers."),
        "num_attention_heads": size(state, f"{layer}self_attn.q_proj.weight", 2)[0] // head,
        "num_key_value_heads": size(state, f"{layer}self_attn.k_proj.weight", 2)[0] // head,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _check_positions(head: int, axes: Any, family: str) -> None:
    if head != sum(axes):
        raise UserError(
            f"its heads have {head} channels, where those of the published {family} have "
            f"{sum(axes)}, so its positions are unknown; give a folder with its "
            "transformer/config.json as --parts (parts= in Python)."
        )


def first_size(state: State, end: str) -> int:
    """The width of the first tensor whose name ends so."""
    name = next((key for key in state if key.endswith(end)), None)
    if name is None:
        raise UserError(f"the weights lack any tensor that ends in {end[1:]}.")
    return size(state, name)[0]


def size(state: State, key: str, ndim: int | None = None) -> tuple[int, ...]:
    """A tensor's shape. UserError where it is missing or has another number of axes."""
    if key not in state:
        raise UserError(f"the weights lack {key}.")
    shape = tuple(state[key].shape)
    if 0 in shape or not shape or (ndim is not None and len(shape) != ndim):
        raise UserError(f"the tensor {key} has shape {list(shape)}, which it has in no such model.")
    return shape
