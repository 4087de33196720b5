"""The loss: what the small decoder makes of a latent against what the VAE makes of it."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroconv.scratch.tiny.model import TinyConfig, build_decoder
from zeroconv.scratch.vae.loss import reconstruction_loss


class TinyTask:
    """The decoder as its training sees it."""

    def __init__(self, config: TinyConfig) -> None:
        self.config = config
        self.model = build_decoder(config).to(memory_format=torch.channels_last)

    def loss(self, *inputs: Tensor) -> Tensor:
        """Of latents (N, C, h, w) and pictures (N, 3, H, W) in [−1, 1]: errors of pixels and of
        their differences to the next ones.
        """
        latents, pictures = inputs
        return reconstruction_loss(self.model(latents), pictures, self.config.edge_weight)
