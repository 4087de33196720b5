"""The parts of the embedded playroom that every base from here shares: autoencoder and
tokenizer.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import zeroconv

PLAYROOM = Path(zeroconv.__file__).resolve().parent / "assets" / "playroom"


def embedded_vae() -> Any:
    """The embedded playroom's AutoencoderKL, float16 as it is stored."""
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file

    folder = PLAYROOM / "vae"
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder))
    vae.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"), assign=True)
    return vae


@lru_cache(maxsize=1)
def encoding_vae() -> Any:
    """`embedded_vae` in float32, frozen, channels last; one for the process."""
    vae = embedded_vae().float().eval()

    return vae.to(memory_format=torch.channels_last).requires_grad_(False)


def embedded_tokenizer() -> Any:
    """The embedded playroom's CLIPTokenizer."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(PLAYROOM / "tokenizer", trust_remote_code=False)
