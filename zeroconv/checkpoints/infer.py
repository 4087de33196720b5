"""A model's config from the shapes of its weights, for files that come without one (diffusers'
layout throughout).

Two numbers leave no trace in the shapes: attention heads and normalisation groups. SD 1.x has 8
heads; SD 2.x and XL, known by their wider text states and linear projections, have heads of 64
channels; all have 32 groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from zeroconv.checkpoints.names import Topology
from zeroconv.errors import UserError

State = Mapping[str, Tensor]


# what of an encoder's config is read off the shapes; the rest leaves no trace in them
VISIBLE = (
    "in_channels",
    "block_out_channels",
    "down_block_types",
    "mid_block_type",
    "layers_per_block",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "use_linear_projection",
    "addition_embed_type",
    "projection_class_embeddings_input_dim",
)


def infer_encoder_config(state: State) -> dict:
    """conv_in, down blocks and middle of a UNet or a ControlNet.

    The "small" and "mid" controls of SDXL have attention in no level, or with no transformer blocks
    in it.
    """
    topology = Topology.of_diffusers(state)
    levels = range(len(topology.attention))
    if not levels:
        raise UserError(
            "the weights lack down_blocks.0.resnets.0.conv1.weight, so they are no Stable "
            "Diffusion UNet or ControlNet."
        )
    widths = [_size(state, f"down_blocks.{i}.resnets.0.conv1.weight", 4)[0] for i in levels]
    attentions = [f"down_blocks.{i}.attentions.0" for i in levels if topology.attention[i]]
    attentions += ["mid_block.attentions.0"] if topology.middle else []
    linear = any(len(_size(state, f"{name}.proj_in.weight")) == 2 for name in attentions)
    read = [key for key in state if key.endswith(".attn2.to_k.weight")]
    xl = "add_embedding.linear_1.weight" in state
    # nothing reads the text in a small control; its base's width is told by the base
    context = _size(state, read[0], 2)[1] if read else 2048 if xl else 768
    wide = context >= 1024 or linear or xl
    config = {
        "in_channels": _size(state, "conv_in.weight", 4)[1],
        "block_out_channels": widths,
        "down_block_types": [
            "CrossAttnDownBlock2D" if a else "DownBlock2D" for a in topology.attention
        ],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if topology.middle else "UNetMidBlock2D",
        "layers_per_block": topology.layers,
        "cross_attention_dim": context,
        "transformer_layers_per_block": _depths(state, topology),
        "use_linear_projection": linear,
        # diffusers: number of heads
        "attention_head_dim": [max(1, width // 64) for width in widths] if wide else 8,
        "norm_num_groups": math.gcd(32, *widths),
        "upcast_attention": wide and context == 1024,  # SD 2.x overflows in float16 otherwise
    }
    if xl:
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        config["projection_class_embeddings_input_dim"] = _size(
            state, "add_embedding.linear_1.weight", 2
        )[1]
    return config


def _depths(state: State, topology: Topology) -> int | list[int]:
    """Transformer blocks a level, one number where all have as many; 1 where a level has no
    attention.
    """
    depths = [
        _depth(state, f"down_blocks.{i}.attentions.0") if attends else 1
        for i, attends in enumerate(topology.attention)
    ]
    if topology.middle:
        # the middle block takes the last level's
        depths[-1] = _depth(state, "mid_block.attentions.0")
    return depths[0] if len(set(depths)) == 1 else depths


def _size(state: State, key: str, ndim: int | None = None) -> tuple[int, ...]:
    """A tensor's shape. UserError where it is missing or has another number of axes."""
    if key not in state:
        raise UserError(
            f"the weights lack {key}, so they are no Stable Diffusion UNet or ControlNet."
        )
    shape = tuple(state[key].shape)
    if 0 in shape or not shape or (ndim is not None and len(shape) != ndim):
        raise UserError(
            f"the tensor {key} has shape {list(shape)}, which it has in no Stable Diffusion."
        )
    return shape


def infer_config(state: State) -> dict:
    """The config of a ControlNet, in diffusers' keys, from weights in diffusers' layout."""
    hint = [
        key
        for key in state
        if key.startswith("controlnet_cond_embedding.") and key.endswith(".weight")
    ]
    blocks = sum(".blocks." in key for key in hint)
    if "controlnet_cond_embedding.conv_in.weight" not in state or blocks % 2:
        raise UserError("the weights hold no ControlNet's hint encoder, so they are no ControlNet.")
    first = _size(state, "controlnet_cond_embedding.conv_in.weight", 4)
    wider = [
        _size(state, f"controlnet_cond_embedding.blocks.{i}.weight", 4)[0]
        for i in range(1, blocks, 2)
    ]
    return {
        **infer_encoder_config(state),
        "conditioning_channels": first[1],
        "conditioning_embedding_out_channels": [first[0], *wider],
    }


def infer_unet_config(state: State, sample_size: int = 64, pooled: int | None = None) -> dict:
    """A UNet's config. pooled: width of SDXL's pooled text states."""
    config = infer_encoder_config(state)
    if pooled is not None and "projection_class_embeddings_input_dim" in config:
        # six numbers of sizes and crops stand behind the pooled states
        rest = config["projection_class_embeddings_input_dim"] - pooled
        config["addition_time_embed_dim"] = max(1, rest // 6)
    attends = [kind.startswith("Cross") for kind in config["down_block_types"]]
    return {
        **config,
        "sample_size": sample_size,
        "out_channels": _size(state, "conv_out.weight", 4)[0],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
    }


def infer_vae_config(state: State, xl: bool = False) -> dict:
    """SD 1.x and 2.x share their autoencoder and its scale, 0.18215; SDXL's has the same shapes
    and another scale, 0.13025 (both are 1 / the standard deviation of its latents). Those of later
    bases have no convolution around their latents.
    """
    quant = "post_quant_conv.weight" in state
    levels = [
        key
        for key in state
        if key.startswith("encoder.down_blocks.") and key.endswith("resnets.0.conv1.weight")
    ]
    layers = sum(f"encoder.down_blocks.0.resnets.{j}.conv1.weight" in state for j in range(16))
    widths = [
        _size(state, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4)[0]
        for i in range(len(levels))
    ]
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": layers,
        "latent_channels": _size(
            state, "post_quant_conv.weight" if quant else "decoder.conv_in.weight", 4
        )[1],
        "norm_num_groups": math.gcd(32, *widths),
        "scaling_factor": 0.13025 if xl else 0.18215,
        # SDXL's overflows in float16
        "force_upcast": xl,
        "sample_size": 1024 if xl else 512,
        **({} if quant else {"use_quant_conv": False, "use_post_quant_conv": False}),
    }


def infer_text_config(state: State, activation: str) -> dict:
    """A CLIP text model, with a projection where the weights have one. `activation`: "quick_gelu"
    in SD 1.x and SDXL's first, "gelu" in SD 2.x and SDXL's second (OpenCLIP).
    """
    projected = "text_projection.weight" in state
    tokens, width = _size(state, "embeddings.token_embedding.weight", 2)
    layers = sum(key.endswith(".mlp.fc1.weight") for key in state)
    kind = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    return {
        "architectures": [kind],
        "model_type": "clip_text_model",
        "vocab_size": tokens,
        "hidden_size": width,
        "intermediate_size": _size(state, "encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": _size(state, "embeddings.position_embedding.weight", 2)[0],
        "hidden_act": activation,
        "projection_dim": (_size(state, "text_projection.weight", 2)[0] if projected else width),
        "bos_token_id": tokens - 2,
        "eos_token_id": tokens - 1,
        "pad_token_id": tokens - 1,
    }


def _depth(state: State, attention: str) -> int:
    return sum(f"{attention}.transformer_blocks.{i}.norm1.weight" in state for i in range(64))
