"""From pictures to latents and back by diffusers' AutoencoderKLQwenImage: a picture is a video of
one frame, and latents have a mean and a spread a channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones.autoencoder import in_chunks, weight_of
from zeroconv.backbones.numbers import check_numbers


def encode(vae: Any, images: Tensor, name: str) -> Tensor:
    """Images (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w): mean ‖ log-variance, not scaled.

    Raises UserError, with the model's name, where they are no numbers.
    """
    weight = weight_of(vae)
    frames = images.to(weight)[:, :, None]  # (N, 3, 1, H, W)
    parts = [vae.encode(part).latent_dist.parameters for part in in_chunks(frames, images.shape)]
    moments = torch.cat(parts)[:, :, 0]
    check_numbers(moments, f"the latents that the VAE of {name} makes of pictures", weight.dtype)
    return moments


def latents(
    vae: Any, moments: Tensor, generator: torch.Generator | None = None, sample: bool = True
) -> Tensor:
    """Moments (N, 2C, h, w) → latents (N, C, h, w), each channel less its mean, over its spread."""
    mean, logvar = moments.chunk(2, dim=1)
    if sample:
        device = generator.device if generator is not None else mean.device
        noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype)
        mean = mean + noise.to(mean.device) * torch.exp(0.5 * logvar.clamp(-30, 20))
    centre, spread = _statistics(vae, mean)
    return (mean - centre) * (1 / spread)


def decode(vae: Any, z: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """Latents (N, C, h, w) → images (N, 3, H, W), float32 in [0, 1].

    Raises UserError, with the model's name, where latents or images are no numbers.
    """
    check_numbers(z, f"the latents that {name} has made", dtype)
    weight, z = weight_of(vae), unscaled(vae, z)
    scale = scale_of(vae)
    pixels = (len(z), 3, z.shape[-2] * scale, z.shape[-1] * scale)
    images = torch.cat([vae.decode(part).sample[:, :, 0].float() for part in in_chunks(z, pixels)])
    check_numbers(images, f"the pictures that the VAE of {name} decodes", weight.dtype)
    return (images / 2 + 0.5).clamp(0, 1)


def decode_with_gradient(vae: Any, z: Tensor) -> Tensor:
    """As `zeroconv.backbones.autoencoder.decode_with_gradient`."""
    with torch.autocast(z.device.type, enabled=False):
        images = vae.decode(unscaled(vae, z)).sample[:, :, 0].float()
    return (images / 2 + 0.5).clamp(0, 1)


def unscaled(vae: Any, z: Tensor) -> Tensor:
    """Latents in the scale that a model reads → those of the autoencoder, (N, C, 1, h, w)."""
    centre, spread = _statistics(vae, z)
    return (z / (1 / spread) + centre).to(weight_of(vae))[:, :, None]


def scale_of(vae: Any) -> int:
    """Pixels a latent."""
    return 2 ** len(vae.temperal_downsample)


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel, (C, 1, 1)."""
    numbers = (vae.config.latents_mean, vae.config.latents_std)
    mean, spread = (torch.tensor(values, device=like.device) for values in numbers)
    return mean[:, None, None].to(like.dtype), spread[:, None, None].to(like.dtype)
