"""A tiny backbone written to disk, in diffusers' folder layout and as one file in the original
layout.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tests.helpers.tiny import tiny_backbone
from zeroconv.checkpoints.stable_diffusion import StableDiffusion, bare_text, to_single_file


def save_backbone(folder: Path, backbone=None):
    """The folder that `StableDiffusionPipeline.save_pretrained` writes."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    backbone = backbone or tiny_backbone()
    parts = {
        "vae": backbone.vae,
        "unet": backbone.unet,
        "scheduler": DDIMScheduler.from_config(backbone.scheduler_config),
        "text_encoder": backbone.text_encoders[0],
        "tokenizer": backbone.tokenizers[0],
    }
    if len(backbone.text_encoders) == 1:
        nothing = {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        StableDiffusionPipeline(**parts, **nothing).save_pretrained(folder)
    else:
        more = {"text_encoder_2": backbone.text_encoders[1], "tokenizer_2": backbone.tokenizers[1]}
        StableDiffusionXLPipeline(**parts, **more).save_pretrained(folder)
    return backbone


def save_single_file(path: Path, backbone, open_clip: bool = False, tokenizer: bool = True) -> Path:
    """One .safetensors in the LDM layout, with a tokenizer/ folder beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(single_file_state(backbone, open_clip), path)
    if tokenizer:
        backbone.tokenizers[0].save_pretrained(path.parent / "tokenizer")
    return path


def single_file_state(backbone, open_clip: bool = False) -> dict[str, Tensor]:
    """The tensors of one file in the LDM layout; of SDXL where there are two text encoders."""
    texts = [bare_text(text.state_dict()) for text in backbone.text_encoders]
    model = StableDiffusion(
        backbone.unet.state_dict(),
        backbone.vae.state_dict(),
        texts[0],
        open_clip,
        *texts[1:],
    )
    return {key: value.contiguous() for key, value in to_single_file(model).items()}
