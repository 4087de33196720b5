"""The small decoder: that of diffusers' AutoencoderTiny, narrower than the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TinyConfig:
    """Network and training; the defaults are the shipped one's."""

    width: int = 24  # channels at every level
    blocks: tuple[int, ...] = (6, 4, 1, 0)  # residual blocks a level, from the latents' one
    latent_channels: int = 8
    batch: int = 4
    pool: int = 1024  # latents that are decoded by the VAE, once each
    noise: float = 0.15  # of sampled latents, which lie beside those of pictures
    minutes: float = 20.0
    rate: float = 3e-3
    edge_weight: float = 1.0
    seed: int = 0

    def diffusers(self) -> dict[str, Any]:
        """The config of diffusers' AutoencoderTiny. Its encoder is as small as can be, since a file
        of a decoder has none.
        """
        return {
            "encoder_block_out_channels": (8,) * len(self.blocks),
            "num_encoder_blocks": (1,) * len(self.blocks),
            "decoder_block_out_channels": (self.width,) * len(self.blocks),
            "num_decoder_blocks": self.blocks,
            "latent_channels": self.latent_channels,
        }


def build_decoder(config: TinyConfig) -> Any:
    """diffusers' DecoderTiny with new weights: latents (N, C, h, w) in the scale that the model
    reads → pictures (N, 3, 8h, 8w) in [−1, 1].
    """
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(**config.diffusers()).decoder
