"""Tiny diffusion transformers in one file, in the layouts in which the real ones are published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroconv.checkpoints.flow.file import from_diffusers
from zeroconv.checkpoints.reading import read_weights
from zeroconv.checkpoints.vae import vae_to_original

KINDS = {"flux": "flux", "chroma": "chroma", "sd3": "sd3", "qwen": "qwen", "zimage": "z_image"}
# folder of a text encoder → how ComfyUI calls it in a whole model
TEXTS = {
    "flux": {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"},
    "chroma": {"text_encoder": "t5xxl"},
    "sd3": {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"},
    "qwen": {"text_encoder": "qwen25_7b"},
    "zimage": {"text_encoder": "qwen3_4b"},
}


def transformer(folder: Path, name: str) -> dict[str, Tensor]:
    """Of a folder of `tiny_flow`, in the layout of its authors."""
    return from_diffusers(read_weights(folder / "transformer"), KINDS[name])


def whole(folder: Path, name: str, vae: str = "vae.") -> dict[str, Tensor]:
    """Transformer, text encoders and VAE in one state dict, as ComfyUI saves it."""
    state = {f"model.diffusion_model.{k}": v for k, v in transformer(folder, name).items()}
    for part, word in TEXTS[name].items():
        start = f"text_encoders.{word}."
        text = read_weights(folder / part)
        state |= {f"{start}transformer.{key}": value for key, value in text.items()}
        state[f"{start}logit_scale"] = torch.ones(())
    inner = read_weights(folder / "vae")
    if name != "qwen":
        inner = vae_to_original(inner)
    return state | {vae + key: value for key, value in inner.items()}


def write(state: Mapping[str, Tensor], path: Path) -> Path:
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


def in_float8(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in float8 with a scale each, as ComfyUI's scaled files."""
    out = dict(state)
    for key, value in state.items():
        if key.endswith(".weight") and value.ndim == 2:
            scale = value.abs().max() / 448
            out[key] = (value / scale).to(torch.float8_e4m3fn)
            out[key.removesuffix("weight") + "scale_weight"] = scale.float()
    out["scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    return out
