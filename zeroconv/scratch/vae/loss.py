"""The autoencoder's loss.

Squared and absolute error of pixels and of their differences to the next pixel (edges decide
whether a hint can be read back), and a KL term whose weight lets the posterior's noise cost a few
percent of the error. No adversary and no perceptual network: the toy world has no texture that
would need one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeroconv.scratch.vae.model import AutoencoderConfig, build_autoencoder


class AutoencoderTask:
    """The autoencoder as its training sees it. `decoder_only`: encoder and latents stay."""

    def __init__(self, config: AutoencoderConfig, size: int, decoder_only: bool = False) -> None:
        self.config, self.decoder_only = config, decoder_only
        self.model = build_autoencoder(config, size).to(memory_format=torch.channels_last)

        if decoder_only:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)

    def loss(self, *inputs: Tensor) -> Tensor:
        """Of pictures (N, 3, H, W) in [−1, 1] and noise like their latents (N, C, h, w)."""
        pictures, noise = inputs
        with torch.set_grad_enabled(not self.decoder_only):
            posterior = self.model.encode(pictures).latent_dist
            latents = posterior.mean + posterior.std * noise

        output = self.model.decode(latents).sample
        loss = reconstruction_loss(output, pictures, self.config.edge_weight)
        return loss if self.decoder_only else loss + self.config.kl_weight * kl(posterior)


def kl(posterior: Any) -> Tensor:
    """Divergence of the posterior from N(0, 1), mean over its entries."""
    return 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()


def reconstruction_loss(output: Tensor, target: Tensor, edge_weight: float) -> Tensor:
    """Squared plus a tenth of absolute error, of pixels and of their horizontal and vertical
    differences.
    """
    error = output - target
    edges = (error.diff(dim=-1), error.diff(dim=-2))
    return _penalty(error) + edge_weight * (_penalty(edges[0]) + _penalty(edges[1]))


def _penalty(error: Tensor) -> Tensor:
    return error.square().mean() + 0.1 * error.abs().mean()


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio a picture (N,), in dB, of pictures in [−1, 1] (clipped as a viewer
    would).
    """
    mse = ((output.clamp(-1, 1) - target) / 2).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(mse)
