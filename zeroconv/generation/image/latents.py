"""What sampling begins with: noise alone, or the latents of a given picture with noise on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone, Flow, UNetBackbone
from zeroconv.generation.samplers.noise import Source, draw


@dataclass
class Start:
    """N pictures before the first step. C are the latent's channels, of h × w.

    noise (N, C, h, w) of unit variance. clean: latents of the given pictures, None without any.
    strength: the share of the steps that are taken, int(steps · strength). pure: begin with the
    noise alone, though there is a picture. mask (N, 1, h, w): 1 where new, 0 where the picture's
    latents, noised, are put back after every step. beside (N, k, h, w): what the UNet reads beside
    its latent. edits: whether `beside` is the latent of a picture to edit, which has a guidance of
    its own.
    """

    noise: Tensor
    clean: Tensor | None = None
    strength: float = 1.0
    pure: bool = False
    mask: Tensor | None = None
    beside: Tensor | None = None
    edits: bool = False
    image_guidance: float = 1.0

    def to(self, device: torch.device | str) -> Start:
        """On a device, latents float32: the sum of all steps is not rounded at each of them."""
        parts = {name: getattr(self, name) for name in ("noise", "clean", "mask", "beside")}
        moved = {k: None if x is None else x.to(device, torch.float32) for k, x in parts.items()}
        return Start(
            **moved,  # type: ignore[arg-type]
            strength=self.strength,
            pure=self.pure,
            edits=self.edits,
            image_guidance=self.image_guidance,
        )


def channels_beside(backbone: Backbone) -> int:
    """Channels that it reads beside the latent: 4 to edit a picture, 5 to fill a hole (FLUX Fill:
    80), else 0.
    """
    if not isinstance(backbone, UNetBackbone):
        return getattr(backbone, "picture_channels", 0)
    return backbone.encoder.conv_in.in_channels - backbone.latent_channels


def encoded(
    backbone: Backbone, pictures: Sequence[Tensor], sources: Sequence[Source] | None = None
) -> Tensor:
    """Pictures (3, H, W) in [0, 1] → latents (N, C, h, w), float32. Equal ones, the same tensor,
    are encoded once. sources: a sample of the posterior, one draw a picture; None: its mean.
    """
    mean, logvar = moments_of(backbone, pictures).chunk(2, dim=1)
    if sources is not None:
        drawn = torch.stack([draw(source, mean.shape[1:]) for source in sources]).to(mean.device)
        mean = mean + drawn * torch.exp(0.5 * logvar.clamp(-30, 20))
    return backbone.latents_from_moments(torch.cat([mean, logvar], dim=1), sample=False)


def moments_of(backbone: Backbone, pictures: Sequence[Tensor]) -> Tensor:
    """Mean ‖ log-variance (N, 2C, h, w), float32 and not scaled."""
    different = {id(picture): picture for picture in pictures}
    moments = backbone.encode_image(torch.stack(list(different.values())) * 2 - 1).float()
    rows = {key: row for row, key in enumerate(different)}
    return moments[[rows[id(picture)] for picture in pictures]]


def mask_at(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, 1, H, W) in [0, 1] → 0 or 1 at the latent's size (h, w), by the pixel nearest to a
    latent's corner, as diffusers takes it.
    """
    return nn.functional.interpolate((masks >= 0.5).float(), size)


def inpainting_channels(
    backbone: Backbone,
    pictures: Sequence[Tensor] | None,
    masks: Tensor | None,
    sources: Sequence[Source],
    size: tuple[int, int],
) -> Tensor:
    """What an inpainting base reads beside its latent, (N, 1 + C, h, w): the mask, and the latent
    of the picture with grey in the hole. Without a mask all is hole, as A1111 has it.

    FLUX Fill reads the latent first, then the mask's pixels as channels of their own.
    """
    scale = backbone.latent_scale
    if masks is None or pictures is None:
        masks = torch.ones(len(sources), 1, size[0] * scale, size[1] * scale)
        pictures = [torch.full((3, size[0] * scale, size[1] * scale), 0.5)] * len(sources)
    holes: dict[tuple[int, bytes], Tensor] = {}
    holed = []
    for picture, mask in zip(pictures, masks, strict=True):
        key = id(picture), (mask >= 0.5).numpy().tobytes()
        if key not in holes:
            holes[key] = torch.where(mask >= 0.5, 0.5, picture)
        holed.append(holes[key])
    latents = encoded(backbone, holed, sources).cpu()
    if not isinstance(backbone, UNetBackbone):
        pixels = nn.functional.pixel_unshuffle((masks >= 0.5).float(), scale)
        return torch.cat([latents, pixels], dim=1)
    return torch.cat([mask_at(masks, size), latents], dim=1)


# ---------------------------------------------------------------- along the scheduler


def begin(scheduler: Any, steps: int, start: Start, backbone: Backbone) -> tuple[Tensor, Tensor]:
    """The timesteps that are taken, and the latents (N, C, h, w) before the first of them."""
    flow = isinstance(backbone.process, Flow)
    timesteps = scheduler.timesteps
    if start.clean is not None:
        # the pipelines of flows round the number of skipped steps down, not of those taken
        skipped = int(steps - steps * start.strength) if flow else 0
        skipped = skipped if flow else steps - min(int(steps * start.strength), steps)
        first = skipped * getattr(scheduler, "order", 1)
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
    if start.clean is None or start.pure:
        # a flow starts from noise of unit variance
        return timesteps, start.noise if flow else start.noise * scheduler.init_noise_sigma
    return timesteps, noised_at(scheduler, start.clean, start.noise, timesteps[:1], flow)


def noised_at(scheduler: Any, clean: Tensor, noise: Tensor, t: Tensor, flow: bool) -> Tensor:
    """Latents with the noise of the scheduler's next step, timestep t (1,)."""
    if flow:
        return scheduler.scale_noise(clean, t.expand(len(clean)), noise)
    return scheduler.add_noise(clean, noise, t)


def put_back(scheduler: Any, z: Tensor, start: Start, later: Tensor, flow: bool) -> Tensor:
    """Latents z (N, C, h, w) after a step, outside the mask those of the picture; `later`: the
    timesteps still to come.
    """
    if start.mask is None or start.clean is None or start.beside is not None:
        return z  # a base for inpainting reads the picture instead
    around = start.clean
    if len(later):
        around = noised_at(scheduler, around, start.noise, later[:1], flow)
    return (1 - start.mask) * around + start.mask * z
