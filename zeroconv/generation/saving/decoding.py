"""By what the result is decoded: the base's VAE, or a small decoder of the same latents."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from zeroconv.backbones.loading.tiny_vae import embedded_tiny_vae
from zeroconv.generation.saving.settings import Fast

Decoder = Callable[[Tensor], Tensor]  # latents (N, C, h, w) → pictures (N, 3, H, W) in [0, 1]


def decoder_of(fast: Fast, backbone: Any) -> Decoder:
    """The backbone's VAE, or what `vae=tiny` asks for: the small decoder it was loaded with, else
    the embedded one where its VAE is the playroom's. A note says where there is none.
    """
    if fast.vae != "tiny":
        return backbone.decode_latents
    if getattr(backbone, "tiny_vae", None) is None:
        backbone.tiny_vae = embedded_tiny_vae(backbone)
    if backbone.tiny_vae is not None:
        return backbone.decode_tiny
    warnings.warn(
        f"fast: vae=tiny is left out: no tiny VAE of the latents of {backbone.name} is here; give "
        "one with --tiny-vae PATH.",
        stacklevel=2,
    )
    return backbone.decode_latents
