"""From pictures to latents and back: what backbones do with diffusers' AutoencoderKL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones import tiling
from zeroconv.backbones.numbers import check_numbers
from zeroconv.layers.sampling import sampling_layers

CHUNK_PIXELS = 4 * 512 * 512  # what the autoencoder holds in one pass


def weight_of(vae: Any) -> Tensor:
    """One of its weights, on the device and in the dtype it computes in. diffusers' properties
    would import its hooks, and peft, to answer that.
    """
    return next(vae.parameters())


def encode(vae: Any, images: Tensor, name: str, tiled: bool = False) -> Tensor:
    """Images (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w): mean ‖ log-variance, not scaled.

    Raises UserError, with the model's name, where they are no numbers.
    """
    weight = weight_of(vae)
    images = images.to(weight)
    scale = scale_of(vae)
    sides = [side // scale for side in images.shape[-2:]]
    if tiled and not tiling.is_one(vae, *sides):
        moments = torch.cat([tiling.encode(vae, part) for part in images.split(1)])
    else:
        parts = in_chunks(images, images.shape)
        moments = torch.cat([vae.encode(part).latent_dist.parameters for part in parts])
    check_numbers(moments, f"the latents that the VAE of {name} makes of pictures", weight.dtype)
    return moments


def latents(
    vae: Any,
    moments: Tensor,
    generator: torch.Generator | None = None,
    sample: bool = True,
    shifted: bool = True,
) -> Tensor:
    """Moments (N, 2C, h, w) → latents (N, C, h, w): a sample of the posterior, or its mean, in the
    scale that the model reads.

    shifted: less the mean of all latents, where the VAE has one (`shift_factor`, SD 3 and FLUX).
    """
    mean, logvar = moments.chunk(2, dim=1)
    if sample:
        device = generator.device if generator is not None else mean.device
        noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype)
        mean = mean + noise.to(mean.device) * torch.exp(0.5 * logvar.clamp(-30, 20))
    shift = getattr(vae.config, "shift_factor", None) if shifted else None
    return (mean - shift if shift else mean) * vae.config.scaling_factor


def decode(
    vae: Any,
    z: Tensor,
    name: str,
    dtype: torch.dtype,
    tiled: bool = False,
    decoder: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Latents (N, C, h, w) → images (N, 3, H, W), float32 in [0, 1]; a few at a time to bound the
    memory. `dtype`: the one that made them, for the message. `tiled`: see `backbones.tiling`.
    `decoder`: from latents in the autoencoder's scale to images in [−1, 1], in place of its own.

    Raises UserError, with the model's name, where latents or images are no numbers.
    """
    check_numbers(z, f"the latents that {name} has made", dtype)
    weight, z = weight_of(vae), unscaled(vae, z)
    scale = scale_of(vae)
    pixels = (z.shape[0], 3, z.shape[2] * scale, z.shape[3] * scale)
    with _no_float16(z.device.type):
        if tiled and not tiling.is_one(vae, *z.shape[2:]):
            images = torch.cat([tiling.decode(vae, part).float() for part in z.split(1)])
        elif decoder is not None:
            images = torch.cat([decoder(part) for part in in_chunks(z, pixels)])
        else:
            with sampling_layers(vae.decoder):
                parts = [vae.decode(part).sample.float() for part in in_chunks(z, pixels)]
            images = torch.cat(parts)
    check_numbers(images, f"the pictures that the VAE of {name} decodes", weight.dtype)
    return (images / 2 + 0.5).clamp(0, 1)


def decode_with_gradient(vae: Any, z: Tensor) -> Tensor:
    """`decode` for a gradient with respect to z: in one piece, and numbers are not checked. Images
    have no gradient where they are clamped.
    """
    device = z.device.type
    with torch.autocast(device, enabled=False):
        images = vae.decode(unscaled(vae, z)).sample.float()
    return (images / 2 + 0.5).clamp(0, 1)


def unscaled(vae: Any, z: Tensor) -> Tensor:
    """Latents in the scale that a model reads → those of the autoencoder, in its dtype."""
    z = z / vae.config.scaling_factor
    if shift := getattr(vae.config, "shift_factor", None):
        z = z + shift
    return z.to(weight_of(vae))


def scale_of(vae: Any) -> int:
    """Pixels a latent: every level but the last halves the size."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _no_float16(device_type: str) -> AbstractContextManager[Any]:
    """Within: no autocast to float16, whose largest number activations of SDXL's decoder exceed."""
    half = (
        torch.is_autocast_enabled(device_type)
        and torch.get_autocast_dtype(device_type) == torch.float16
    )
    return torch.autocast(device_type, enabled=False) if half else nullcontext()


def in_chunks(x: Tensor, image_shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Parts of x, a few pictures each, by the shape of its pictures."""
    return x.split(max(1, CHUNK_PIXELS // (image_shape[-1] * image_shape[-2])))
