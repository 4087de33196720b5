"""T2I-Adapter (Mou et al. 2023): features of the hint alone, added at each level of the frozen
encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from zeroconv.backbones import TextStates, UNetBackbone, UNetEncoder
from zeroconv.baselines.base import Baseline, Embedding


class T2IAdapter(Baseline):
    """diffusers' own `T2IAdapter` ("full_adapter"): pixel unshuffle, then residual blocks, one
    group a level.

    It sees neither latent, step nor prompt, so it runs once a picture. As published it has no layer
    that starts at zero: a new one already changes the picture. The published training draws
    timesteps towards the noisy end; here the recipe decides, as for every other network.
    """

    kind = "t2i_adapter"
    exact_start = False

    def __init__(self, backbone: UNetBackbone, *, res_blocks: int = 2) -> None:
        super().__init__()
        from diffusers import T2IAdapter as Adapter

        self.adapter = Adapter(
            channels=list(backbone.unet.config.block_out_channels),
            num_res_blocks=res_blocks,
            downscale_factor=backbone.latent_scale,
            adapter_type="full_adapter",
        )

    def embed_hint(self, hint: Tensor) -> Embedding:
        """One tensor a level, (N, C_i, H / 2^i, W / 2^i)."""
        return tuple(self.adapter(hint))

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        return backbone.decode(encode_with(backbone.encoder, z, t, text, embedding), t, text)


def encode_with(
    encoder: UNetEncoder, z: Tensor, t: Tensor | int, text: TextStates, features: Sequence[Tensor]
) -> list[Tensor]:
    """The frozen encoder with one feature added at the end of each level, before its halving: the
    sum goes on to the next level and to the decoder. The result is that of `UNetEncoder.forward`.

    diffusers' UNet does so where a level has cross-attention, as all but the last of Stable
    Diffusion have. A level without, and with a halving (the playroom's first, SDXL's first), is
    driven by hand here to the same effect.
    """
    emb = encoder.embed_time(z.shape[0], t, text)
    x = encoder.conv_in(z)
    skips = [x]
    for block, feature in zip(encoder.down_blocks, features, strict=True):
        if getattr(block, "has_cross_attention", False):
            x, outputs = block(
                x, emb, encoder_hidden_states=text.hidden, additional_residuals=feature
            )
            skips += outputs
            continue
        for resnet in block.resnets:
            x = resnet(x, emb)
            skips.append(x)
        skips[-1] = x = x + feature
        for halving in block.downsamplers or ():
            x = halving(x)
            skips.append(x)
    middle = encoder.mid_block
    if getattr(middle, "has_cross_attention", False):
        return [*skips, middle(x, emb, encoder_hidden_states=text.hidden)]
    return [*skips, middle(x, emb)]
