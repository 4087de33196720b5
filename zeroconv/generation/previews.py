"""Small pictures of latents while they are sampled: a matrix instead of the decoder.

One pixel a latent position, RGB = latent · factors + bias. The studio and callbacks use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from zeroconv.backbones import Backbone

# For SD 1.x and 2.x, and for SDXL: fitted by others, published in several projects; RGB in [−1, 1]
STABLE_DIFFUSION = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)
SDXL = (
    (0.3651, 0.4232, 0.4341),
    (-0.2533, -0.0042, 0.1068),
    (0.1076, 0.1111, -0.0362),
    (-0.3165, -0.2492, -0.2188),
)
SDXL_BIAS = (0.1084, -0.0175, -0.0011)
# latents' factor in the autoencoder's config → published factors and bias, where the autoencoder is
# as wide as theirs
PUBLISHED: dict[float, tuple[Any, Any]] = {
    0.18215: (STABLE_DIFFUSION, (0.0, 0.0, 0.0)),
    0.13025: (SDXL, SDXL_BIAS),
}
WIDTHS = [128, 256, 512, 512]
SAMPLES, SIDE = 48, 8  # latents that are decoded for a fit, and their height and width


@dataclass(frozen=True)
class Preview:
    """factors (C, 3) and bias (3,): a latent to RGB in [0, 1]."""

    factors: Tensor
    bias: Tensor

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) as `generate` hands them to its callback → (N, 3, h, w) in [0, 1],
        float32 on the CPU. Those of early steps hold noise, and the preview shows it; samplers of
        σ keep x0 + σ ε, which is brought to unit variance here.
        """
        z = latents.detach().to("cpu", torch.float32)
        z = z / z.std((1, 2, 3), keepdim=True).clamp_min(1)
        rgb = torch.einsum("nchw,cr->nrhw", z, self.factors) + self.bias[:, None, None]
        return rgb.clamp(0, 1)


_KNOWN: WeakKeyDictionary[Any, Preview] = WeakKeyDictionary()


def preview_of(backbone: Backbone) -> Preview:
    """The backbone's factors: published ones for Stable Diffusion's and SDXL's autoencoders, else
    fitted to its own decoder, once while the backbone lives.
    """
    if backbone not in _KNOWN:
        _KNOWN[backbone] = _published(backbone) or fitted(backbone)
    return _KNOWN[backbone]


def _published(backbone: Backbone) -> Preview | None:
    config = getattr(getattr(backbone, "vae", None), "config", None)
    if config is None or list(config.block_out_channels) != WIDTHS:
        return None
    known = PUBLISHED.get(round(float(config.scaling_factor), 5))
    if known is None:
        return None
    factors, bias = (torch.tensor(part) for part in known)
    return Preview(factors / 2, bias / 2 + 0.5)  # from [−1, 1] to [0, 1]


@torch.inference_mode()
def fitted(backbone: Backbone, seed: int = 0) -> Preview:
    """Least squares from random latents to the means of their decoded pixels, 8×8 of a latent.

    Latents are one colour each with noise upon it: pictures are even in places, white noise is
    not.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, scale = backbone.latent_channels, backbone.latent_scale
    even = torch.randn(SAMPLES, channels, 1, 1, generator=generator)
    noise = torch.randn(SAMPLES, channels, SIDE, SIDE, generator=generator)
    z = even + 0.3 * noise  # (N, C, h, w), a variance near 1
    decoded = torch.cat([backbone.decode_latents(part.to(backbone.device)) for part in z.split(8)])
    means = torch.nn.functional.avg_pool2d(decoded.float().cpu(), scale)  # (N, 3, h, w)
    rows = z.permute(0, 2, 3, 1).reshape(-1, channels)
    left = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)  # the bias is a channel of ones
    solved = torch.linalg.lstsq(left, means.permute(0, 2, 3, 1).reshape(-1, 3)).solution
    return Preview(solved[:-1].clone(), solved[-1].clone())
