"""The playroom's AutoencoderKL (Rombach et al. 2022, section 3.1): its settings, new weights, and
how its latents are whitened.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class AutoencoderConfig:
    """Network and training; the defaults are the shipped one's."""

    widths: tuple[int, ...] = (16, 32, 64, 128)  # 3 halvings: 8 pixels a latent
    latent_channels: int = 8
    steps: int = 12_000
    batch_size: int = 8  # whole pictures; crops come in four times as many
    crop: int = 64
    # share of the steps on crops; then whole pictures, as GroupNorm will see them
    crop_share: float = 0.6
    learning_rate: float = 2e-3
    warmup: int = 100
    kl_weight: float = 3e-4
    edge_weight: float = 0.2
    minutes: float | None = None  # the schedule runs by the clock instead of by steps
    save: float = 240.0  # seconds between two states
    seed: int = 0

    @property
    def factor(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(self.widths) - 1)


def build_autoencoder(config: AutoencoderConfig, size: int) -> Any:
    """A diffusers AutoencoderKL; attention in the middle is left out: it costs time and buys
    nothing at 16×16 here.
    """
    from diffusers import AutoencoderKL

    levels = len(config.widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=size,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in [−1, 1], channels last in memory."""
    return (
        torch.from_numpy(np.array(pictures, order="C"))
        .permute(0, 3, 1, 2)
        .float()
        .div_(127.5)
        .sub_(1.0)
    )


@torch.no_grad()
def measure(vae: Any, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and spread of the latents (C,), of pictures (N, H, W, 3) uint8."""
    parts = [to_tensor(pictures[start : start + 32]) for start in range(0, len(pictures), 32)]
    means = torch.cat([vae.encode(part).latent_dist.mean for part in parts])

    return means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))


def encoder_checksum(vae: Any) -> str:
    """SHA-256 of what decides the latents: encoder and quant_conv."""
    digest = hashlib.sha256()

    for part in (vae.encoder, vae.quant_conv):
        for name, value in part.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def whiten_(vae: Any, mean: Tensor, spread: Tensor) -> None:
    """Fold `(z − mean) / spread` a channel into the VAE's own 1×1 convolutions, so that latents
    have mean 0, spread 1.

    Stable Diffusion's single scaling factor cannot shift or tell channels apart; its quant
    convolutions can.
    """
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= spread[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / spread
    quant.bias[channels:] -= 2 * spread.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= spread[None, :, None, None]
