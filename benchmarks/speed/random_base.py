"""Bases of published sizes with random weights, written as one float16 file in the published
layout, tensor by tensor, so that no more than a tensor is in memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.memory import POOLED, SD15, SDXL, TEXTS, UNETS
from zeroconv.checkpoints.stable_diffusion import StableDiffusion, bare_text, to_single_file

VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
PROMAX = 8  # kinds of hints of the ProMax Union
_PART = 2**22  # numbers that are written at a time


def write_base(path: Path, base: str) -> int:
    """A base of the size of SD15 or SDXL, and a small tokenizer beside it. Returns its bytes."""
    from tests.helpers.tiny import tiny_tokenizer

    tiny_tokenizer().save_pretrained(path.parent / "tokenizer")
    return write_weights(path, base_shapes(base))


def base_shapes(base: str) -> dict[str, Tensor]:
    """The tensors of the published file, on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNETS[base]), AutoencoderKL(**VAE)
        texts = [CLIPTextModel(CLIPTextConfig(**TEXTS[SD15]))]
        if base == SDXL:
            config = CLIPTextConfig(**TEXTS[SDXL], projection_dim=POOLED)
            texts.append(CLIPTextModelWithProjection(config))
    bare = [bare_text(text.state_dict()) for text in texts]
    model = StableDiffusion(unet.state_dict(), vae.state_dict(), bare[0], False, *bare[1:])
    return to_single_file(model)


def union_shapes() -> dict[str, Tensor]:
    """The tensors of a Union control of ProMax's size, in diffusers' layout, on the meta device."""
    from diffusers import ControlNetUnionModel, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[SDXL])
        net = ControlNetUnionModel.from_unet(unet, load_weights_from_unet=False)
    state = net.state_dict()
    width = state["task_embedding"].shape[1]
    wide, inner = state["control_add_embedding.linear_1.weight"].shape
    kinds = state["task_embedding"].shape[0]
    return state | {
        "task_embedding": torch.empty(PROMAX, width, device="meta"),
        "control_add_embedding.linear_1.weight": torch.empty(
            wide, inner // kinds * PROMAX, device="meta"
        ),
    }


def lora_shapes(base: str, rank: int = 8) -> dict[str, Tensor]:
    """The tensors of a LoRA of every attention of a UNet, on the meta device."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        state = UNet2DConditionModel(**UNETS[base]).state_dict()
    out = {}
    for key, weight in state.items():
        if key.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight")):
            name = f"unet.{key.removesuffix('.weight')}"
            out[f"{name}.lora_A.weight"] = torch.empty(rank, weight.shape[1], device="meta")
            out[f"{name}.lora_B.weight"] = torch.empty(weight.shape[0], rank, device="meta")
    return out


def write_weights(path: Path, state: Mapping[str, Tensor]) -> int:
    """A .safetensors in float16 of tensors of these shapes; norms of ones. Returns its bytes."""
    table, end = {}, 0
    for name, value in state.items():
        begin, end = end, end + 2 * value.numel()
        table[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [begin, end]}
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)

    noise = torch.randn(_PART, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(_PART, dtype=torch.float16).numpy().tobytes()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, value in state.items():
            block = ones
            if not (name.endswith("weight") and value.ndim == 1):
                scale = 1 / math.sqrt(max(1, math.prod(value.shape[1:])))
                block = (noise * scale).half().numpy().tobytes()
            left = 2 * value.numel()
            while left > 0:
                left -= file.write(block[:left])
    return path.stat().st_size
