"""Where the embedded playroom lies; every base from here shares its VAE and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
