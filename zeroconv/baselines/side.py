"""Side-tuning: a small network beside the frozen one, added to its output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.baselines.base import Baseline, Embedding, to_channels
from zeroconv.errors import UserError

STARTS = ("zero_conv", "scale")


class Side(Baseline):
    """Additive learning (Zhang et al. 2020, "Side-Tuning"): output = frozen(z_t, t, text) + α ·
    side(z_t, hint, t).

    The side network is a diffusers `UNet2DModel` of one block a level and `ratio` times the
    backbone's channels, which reads latent and unshuffled hint; it sees no prompt and nothing of
    what the frozen model computes. Training starts from the frozen model. start: "scale" has α, one
    trained number, begin at zero; "zero_conv" fixes α at 1 and has the side network's last
    convolution begin at zero instead, which learned a little sooner in short trials.
    """

    kind = "side"

    def __init__(
        self, backbone: UNetBackbone, *, ratio: float = 0.5, start: str = "zero_conv"
    ) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        if start not in STARTS:
            raise UserError(
                f"there is no start {start!r} of a side network; choose one of {', '.join(STARTS)}."
            )
        widths = [
            max(16, round(ratio * c / 16) * 16) for c in backbone.unet.config.block_out_channels
        ]
        self.latent_scale = backbone.latent_scale
        self.network = UNet2DModel(
            in_channels=backbone.latent_channels + 3 * backbone.latent_scale**2,
            out_channels=backbone.unet.config.out_channels,
            block_out_channels=tuple(widths),
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
            layers_per_block=1,
            norm_num_groups=8,
            add_attention=False,
        )
        self.blend: nn.Parameter | None = None  # α
        if start == "scale":
            self.blend = nn.Parameter(torch.zeros(1))
        else:
            for parameter in self.network.conv_out.parameters():
                nn.init.zeros_(parameter)

    def embed_hint(self, hint: Tensor) -> Embedding:
        return (to_channels(hint, self.latent_scale),)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        with torch.no_grad():
            frozen = backbone.decode(backbone.encode(z, t, text), t, text)
        side = self.network(torch.cat([z, embedding[0].to(z.dtype)], dim=1), t).sample
        return frozen + (side if self.blend is None else self.blend * side)
