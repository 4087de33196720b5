"""ControlNet-XS (Zavadski et al. 2023): a small encoder that talks with the frozen one in both
directions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.baselines.base import Baseline, Embedding, adopt_trained, share
from zeroconv.control import ReleasedHintEncoder
from zeroconv.control.hint import keep_contrast_
from zeroconv.errors import UserError


class ControlNetXS(Baseline):
    """diffusers' own `UNetControlNetXSModel` and `ControlNetXSAdapter`, its frozen half being the
    backbone's own modules.

    After every block of the frozen encoder the two exchange features through zero convolutions; the
    small one, of `ratio` times the channels, starts from random weights. A new one gives exactly
    the frozen output. hint_widths: of the hint encoder, None for the released ones; it is
    initialised like ControlNet's (`keep_contrast_`).
    """

    kind = "controlnet_xs"
    _network: Any

    def __init__(
        self,
        backbone: UNetBackbone,
        *,
        ratio: float = 0.25,
        hint_widths: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        unet: Any = backbone.unet
        if backbone.reads_guidance:
            raise UserError(
                "ControlNet-XS has no place for the guidance scale that this base (LCM) reads."
            )
        if unet.config.layers_per_block != 2:
            raise UserError(
                "ControlNet-XS is built for UNets of two layers a block, as Stable Diffusion's are."
            )
        like = ReleasedHintEncoder(1, backbone.latent_scale, hint_widths)  # checks the widths
        network = build(unet, ratio, like.widths)
        embedding = network.controlnet_cond_embedding
        keep_contrast_((embedding.conv_in, *embedding.blocks))
        share_frozen_(network, share(unet))
        network.freeze_unet_params()
        self._hide("_network", network.eval())
        adopt_trained(self, network)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        added = (
            None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": text.time_ids}
        )
        return self._network(z, t, text.hidden, embedding[0], added_cond_kwargs=added).sample


def build(unet: Any, ratio: float, hint_widths: tuple[int, ...]) -> Any:
    """diffusers' fused model for `unet`. Its builders assume latents of 4 channels, so they see a
    UNet of 4; the layers that touch latents are put right afterwards. Raises UserError where the
    ratio gives no whole network.
    """
    from diffusers import ControlNetXSAdapter, UNet2DConditionModel, UNetControlNetXSModel
    from diffusers.utils import logging

    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its .to warns of every dtype
    try:
        standard = UNet2DConditionModel(**{**config, "in_channels": 4, "out_channels": 4})
        adapter = ControlNetXSAdapter.from_unet(
            standard, size_ratio=ratio, conditioning_embedding_out_channels=hint_widths
        )
        network: Any = UNetControlNetXSModel.from_unet(standard, adapter)
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        raise UserError(
            f"a ControlNet-XS of ratio {ratio} cannot be built for this base: {error}."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    ctrl = network.ctrl_conv_in
    if unet.config.in_channels != ctrl.in_channels:
        network.ctrl_conv_in = nn.Conv2d(unet.config.in_channels, ctrl.out_channels, 3, padding=1)
    return network


def share_frozen_(network: Any, unet: Any) -> None:
    """Put the frozen UNet's own modules where the fused model holds copies of them.

    No weight is held twice, and the frozen half computes what it always did: diffusers' copies have
    norms with another epsilon (1e-6 in their residual blocks, where the UNet has 1e-5), so they
    start near the frozen model, not at it.
    """
    for name in ("time_proj", "time_embedding", "conv_in", "conv_norm_out", "conv_act", "conv_out"):
        setattr(network, f"base_{name}", getattr(unet, name))
    for name in ("add_time_proj", "add_embedding"):
        if getattr(unet, name, None) is not None:
            setattr(network, f"base_{name}", getattr(unet, name))
    for fused, block in zip(network.down_blocks, unet.down_blocks, strict=True):
        fused.base_resnets = block.resnets
        if hasattr(block, "attentions"):
            fused.base_attentions = block.attentions
        if block.downsamplers is not None:
            fused.base_downsamplers = block.downsamplers[0]
    network.mid_block.base_midblock = unet.mid_block
    for fused, block in zip(network.up_blocks, unet.up_blocks, strict=True):
        fused.resnets = block.resnets
        if hasattr(block, "attentions"):
            fused.attentions = block.attentions
        if block.upsamplers is not None:
            fused.upsamplers = block.upsamplers[0]
