"""A UNet in two parts again: the outermost blocks, which see each step's latents, and the rest.

The decoder's last block has layers; each reads the layer before it and one output of the encoder.
Of the last n layers, the encoder's first n outputs are read: conv_in and n − 1 layers of the first
level. So a step that has the deep part from before runs conv_in, these n − 1 layers, and n layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones import Backbone, TextStates, UNetBackbone

_FIRST = ("DownBlock2D", "CrossAttnDownBlock2D")
_LAST = ("UpBlock2D", "CrossAttnUpBlock2D")


def most_layers(backbone: Backbone) -> int:
    """How many layers of the decoder may run alone; 0 of a network that is built otherwise."""
    if not isinstance(backbone, UNetBackbone):
        return 0
    first, last = backbone.unet.down_blocks[0], backbone.unet.up_blocks[-1]
    if type(first).__name__ not in _FIRST or type(last).__name__ not in _LAST:
        return 0
    return len(last.resnets) if len(backbone.unet.up_blocks) > 1 else 0


def encode_first(
    backbone: UNetBackbone, z: Tensor, t: Tensor, text: TextStates, layers: int
) -> list[Tensor]:
    """z (N, C, H, W) → the encoder's first `layers` outputs, (N, C0, H, W) each."""
    encoder, block = backbone.encoder, backbone.unet.down_blocks[0]
    x = encoder.conv_in(z)
    outputs = [x]
    if layers > 1:
        emb = encoder.embed_time(len(z), t, text)
        for index in range(layers - 1):
            x = _layer(block, index, x, emb, text)
            outputs.append(x)
    return outputs


def decode_keeping(
    backbone: UNetBackbone, skips: Sequence[Tensor], t: Tensor, text: TextStates, layers: int
) -> tuple[Tensor, Tensor]:
    """`UNetBackbone.decode`, and what goes into the decoder's last `layers` layers (N, C, H, W)."""
    unet = backbone.unet
    last = unet.up_blocks[-1]
    kept: list[Tensor] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        # its input is the layer before it beside one of the encoder's outputs
        kept.append(x[:, : x.shape[1] - skips[layers - 1].shape[1]])

    hook = last.resnets[-layers].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        output = backbone.decode(skips, t, text)
    finally:
        hook.remove()
    return output, kept[0]


def decode_last(
    backbone: UNetBackbone, deep: Tensor, skips: Sequence[Tensor], t: Tensor, text: TextStates
) -> Tensor:
    """The decoder's last layers, as many as there are skips: `deep` (N, C, H, W) of an earlier step
    and this step's skips → the model's output (N, C, H, W).
    """
    unet, x = backbone.unet, deep
    block = unet.up_blocks[-1]
    emb = backbone.encoder.embed_time(len(x), t, text)
    count = len(block.resnets)
    for index, skip in zip(range(count - len(skips), count), reversed(skips), strict=True):
        x = _layer(block, index, torch.cat([x, skip], dim=1), emb, text)
    if unet.conv_norm_out is not None:
        x = unet.conv_act(unet.conv_norm_out(x))
    return unet.conv_out(x)


def _layer(block: Any, index: int, x: Tensor, emb: Tensor, text: TextStates) -> Tensor:
    x = block.resnets[index](x, emb)
    if getattr(block, "has_cross_attention", False):
        x = block.attentions[index](x, encoder_hidden_states=text.hidden, return_dict=False)[0]
    return x
