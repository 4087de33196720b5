"""Tiny Stable Diffusions with random weights, for tests: the real topology, a few channels wide."""

from __future__ import annotations

import itertools
import tempfile
from typing import TypeVar

import torch
from torch import nn

from zeroconv.backbones.unet import DEFAULT_SCHEDULER, UNetBackbone

Module = TypeVar("Module", bound=nn.Module)

WIDTHS = (16, 32, 32, 48)
TEXT_WIDTH = 32
TEXT_LENGTH = 16


def seeded(function):
    """Random weights that are the same in every run, whatever ran before."""

    def build(*args, seed: int = 0, **kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return function(*args, **kwargs)

    return build


@seeded
def tiny_unet(**options):
    """SD's topology (12 skips and the middle), 8 heads, output layers that are not zero.

    Heads and groups are what `checkpoints.infer` reads off these widths, as they cannot be seen in
    the weights.
    """
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 8,
        "block_out_channels": WIDTHS,
        "layers_per_block": 2,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 8,  # diffusers: the number of heads
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(**{**config, **options})


@seeded
def tiny_unet_xl(**options):
    """SDXL's topology: three levels, text and time added to the step, two text encoders' states
    side by side.
    """
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 8,
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 2),
        "layers_per_block": 2,
        "cross_attention_dim": 2 * TEXT_WIDTH,
        "attention_head_dim": (1, 2, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": TEXT_WIDTH + 6 * 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**config, **options})


@seeded
def tiny_vae(**options):
    """8 pixels a latent, 4 latent channels."""
    from diffusers import AutoencoderKL

    config = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 64,
    }
    return AutoencoderKL(**{**config, **options})


def tiny_tokenizer():
    """A CLIPTokenizer that writes a prompt letter by letter."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    symbols = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocab = {symbol: i for i, symbol in enumerate(symbols)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=TEXT_LENGTH)
    # as it comes back from a folder, which is how users meet it
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)


@seeded
def tiny_text(projection: bool = False, **options):
    """A CLIPTextModel and its tokenizer; with `projection`, the CLIPTextModelWithProjection of
    SDXL.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = tiny_tokenizer()
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "projection_dim": TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(CLIPTextConfig(**{**config, **options})), tokenizer


def tiny_backbone(prediction_type: str = "epsilon", seed: int = 0, unet=None) -> UNetBackbone:
    text, tokenizer = tiny_text(seed=seed + 1)
    scheduler = {**DEFAULT_SCHEDULER, "prediction_type": prediction_type}
    unet = unet if unet is not None else tiny_unet(seed=seed)
    return UNetBackbone(unet, tiny_vae(seed=seed + 2), [text], [tokenizer], scheduler, name="tiny")


def tiny_backbone_xl(seed: int = 0, unet=None) -> UNetBackbone:
    first, tokenizer = tiny_text(seed=seed + 1)
    second, _ = tiny_text(projection=True, seed=seed + 3)
    unet, vae = unet if unet is not None else tiny_unet_xl(seed=seed), tiny_vae(seed=seed + 2)
    return UNetBackbone(unet, vae, [first, second], [tokenizer, tokenizer], None, name="tiny-xl")


def tiny_backbone_xl_file(seed: int = 0, **unet) -> UNetBackbone:
    """A tiny SDXL whose heads, groups and activations are those that one file is read with."""
    from transformers import CLIPTokenizer

    first, tokenizer = tiny_text(seed=seed + 1)
    second, _ = tiny_text(projection=True, seed=seed + 3, hidden_act="gelu", num_hidden_layers=3)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        filling = CLIPTokenizer.from_pretrained(folder, pad_token="!")
    options = {"attention_head_dim": (1, 1, 1), "norm_num_groups": 16, **unet}
    vae = tiny_vae(seed=seed + 2, scaling_factor=0.13025, force_upcast=True)
    return UNetBackbone(
        tiny_unet_xl(seed=seed, **options), vae, [first, second], [tokenizer, filling], None, "xl"
    )


def randomise_(module: Module, scale: float = 0.1, seed: int = 7) -> Module:
    """Fill every convolution that is zero with random weights, so that nothing hides behind
    zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and not conv.weight.any():
            for parameter in itertools.chain(conv.parameters()):
                with torch.no_grad():
                    parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def inputs(backbone, n: int = 2, size: int = 8, seed: int = 3):
    """z, hint, t and text for a batch of n."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, backbone.latent_channels, size, size, generator=generator)
    hint = torch.rand(
        n, 3, size * backbone.latent_scale, size * backbone.latent_scale, generator=generator
    )
    t = torch.randint(0, 1000, (n,), generator=generator)
    text = backbone.embed_text([f"picture {i}" for i in range(n)])
    return z, hint, t, text


def doubled(z, hint, t, text):
    """`inputs` in float64, for comparisons that float32's rounding would decide."""
    return z.double(), hint.double(), t, text.to(dtype=torch.float64)


def sees_one_position(name: str) -> bool:
    """Whether a parameter may be without a gradient: of the middle's self-attention, which has one
    position to look at in the tiny pictures, so that queries and keys decide nothing. What gradient
    they have elsewhere is rounding.
    """
    return "mid" in name and "attn1" in name and ("to_q" in name or "to_k" in name)
