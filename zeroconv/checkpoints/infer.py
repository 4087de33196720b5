"""A model's config from the shapes of its weights, for files that come without one (diffusers' layout throughout).

Two numbers leave no trace in the shapes: attention heads and normalisation groups. SD 1.x has 8 heads; SD 2.x and XL,
known by their wider text states and linear projections, have heads of 64 channels; all have 32 groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from zeroconv.checkpoints.names import Topology
from zeroconv.errors import UserError

State = Mapping[str, Tensor]


def infer_encoder_config(state: State) -> dict:
    """conv_in, down blocks and middle of a UNet or a ControlNet."""
    topology = Topology.of_diffusers(state)
    levels = range(len(topology.attention))
    try:
        widths = [state[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in levels]
        middle = "mid_block.attentions.0"
        context = state[f"{middle}.transformer_blocks.0.attn2.to_k.weight"].shape[1]
        linear = state[f"{middle}.proj_in.weight"].ndim == 2
        in_channels = state["conv_in.weight"].shape[1]
    except KeyError as error:
        raise UserError(
            f"the weights lack {error.args[0]}, so they are no Stable Diffusion UNet or ControlNet."
        ) from None
    depths = [_depth(state, f"down_blocks.{i}.attentions.0") or 1 for i in levels]
    depths[-1] = _depth(state, middle)  # the middle block takes the last level's
    wide = context >= 1024 or linear
    config = {
        "in_channels": in_channels,
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in topology.attention],
        "layers_per_block": topology.layers,
        "cross_attention_dim": context,
        "transformer_layers_per_block": 1 if set(depths) == {1} else depths,
        "use_linear_projection": linear,
        "attention_head_dim": [max(1, width // 64) for width in widths] if wide else 8,  # diffusers: number of heads
        "norm_num_groups": math.gcd(32, *widths),
        "upcast_attention": wide and context == 1024,  # SD 2.x overflows in float16 otherwise
    }
    if "add_embedding.linear_1.weight" in state:  # SDXL
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        config["projection_class_embeddings_input_dim"] = state["add_embedding.linear_1.weight"].shape[1]
    return config


def infer_config(state: State) -> dict:
    """The config of a ControlNet, in diffusers' keys, from weights in diffusers' layout."""
    hint = [key for key in state if key.startswith("controlnet_cond_embedding.") and key.endswith(".weight")]
    blocks = sum(".blocks." in key for key in hint)
    if "controlnet_cond_embedding.conv_in.weight" not in state or blocks % 2:
        raise UserError("the weights hold no ControlNet's hint encoder, so they are no ControlNet.")
    first = state["controlnet_cond_embedding.conv_in.weight"]
    wider = [state[f"controlnet_cond_embedding.blocks.{i}.weight"].shape[0] for i in range(1, blocks, 2)]
    return {
        **infer_encoder_config(state),
        "conditioning_channels": first.shape[1],
        "conditioning_embedding_out_channels": [first.shape[0], *wider],
    }


def infer_unet_config(state: State, sample_size: int = 64) -> dict:
    config = infer_encoder_config(state)
    attends = [kind.startswith("Cross") for kind in config["down_block_types"]]
    return {
        **config,
        "sample_size": sample_size,
        "out_channels": state["conv_out.weight"].shape[0],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
    }


def infer_vae_config(state: State) -> dict:
    """SD 1.x and 2.x share their autoencoder and its scale, 0.18215."""
    levels = [key for key in state if key.startswith("encoder.down_blocks.") and key.endswith("resnets.0.conv1.weight")]
    layers = sum(f"encoder.down_blocks.0.resnets.{j}.conv1.weight" in state for j in range(16))
    widths = [state[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(len(levels))]
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": layers,
        "latent_channels": state["post_quant_conv.weight"].shape[1],
        "norm_num_groups": math.gcd(32, *widths),
        "scaling_factor": 0.18215,
    }


def infer_text_config(state: State, activation: str) -> dict:
    """A CLIP text model. `activation`: "quick_gelu" in SD 1.x, "gelu" in SD 2.x (OpenCLIP)."""
    tokens, width = state["embeddings.token_embedding.weight"].shape
    layers = sum(key.endswith(".mlp.fc1.weight") for key in state)
    return {
        "vocab_size": tokens,
        "hidden_size": width,
        "intermediate_size": state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": state["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": activation,
        "projection_dim": width,
        "bos_token_id": tokens - 2,
        "eos_token_id": tokens - 1,
        "pad_token_id": tokens - 1,
    }


def _depth(state: State, attention: str) -> int:
    return sum(f"{attention}.transformer_blocks.{i}.norm1.weight" in state for i in range(64))
