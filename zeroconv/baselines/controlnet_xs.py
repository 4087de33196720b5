"""ControlNet-XS (Zavadski et al. 2023): a small encoder that talks with the frozen one in both
directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
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
    initialised like ControlNet's (`keep_contrast_`). adapter: diffusers' config of a published one,
    in place of both.

    It gives the whole output, since both encoders run together. What it adds to the frozen one may
    be scaled, and residuals of ControlNets may be added before the decoder.
    """

    kind = "controlnet_xs"
    takes_residuals = True
    _network: Any

    def __init__(
        self,
        backbone: UNetBackbone,
        *,
        ratio: float = 0.25,
        hint_widths: tuple[int, ...] | None = None,
        adapter: dict[str, Any] | None = None,
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
        if adapter is not None:
            hint_widths = tuple(adapter.get("conditioning_embedding_out_channels") or ()) or None
            _check_adapter(adapter, backbone)
        like = ReleasedHintEncoder(1, backbone.latent_scale, hint_widths)  # checks the widths
        network, published = build(unet, ratio, like.widths, adapter)
        self._hide("_published", published)
        embedding = network.controlnet_cond_embedding
        keep_contrast_((embedding.conv_in, *embedding.blocks))
        share_frozen_(network, share(unet))
        network.freeze_unet_params()
        self._hide("_network", network.eval())
        adopt_trained(self, network)

    def published_config(self) -> dict[str, Any]:
        return {"adapter": cast(Any, self)._published}

    @property
    def hint_channels(self) -> int:
        return self._network.controlnet_cond_embedding.conv_in.in_channels

    def embed_hint(self, hint: Tensor) -> Embedding:
        """(N, 3, sH, sW) → (N, C0 of the small encoder, H, W)."""
        if self._network.config.ctrl_conditioning_channel_order == "bgr":
            hint = hint.flip(1)
        return (self._network.controlnet_cond_embedding(hint),)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
        scale: float | Tensor = 1.0,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """As `Baseline.predict_embedded`. scale: on all that goes into the frozen half, a number or
        (N, 1, 1, 1); residuals: of ControlNets, one a connection.
        """
        network = self._network
        emb = self._embed_time(backbone, len(z), t, text)
        shared = {"temb": emb, "encoder_hidden_states": text.hidden, "conditioning_scale": scale}
        side = network.ctrl_conv_in(z) + embedding[0]
        x = network.base_conv_in(z) + network.control_to_base_for_conv_in(side) * scale
        skips, sides = [x], [side]
        for block in network.down_blocks:
            x, side, new, beside = block(hidden_states_base=x, hidden_states_ctrl=side, **shared)
            skips += new
            sides += beside
        x, _ = network.mid_block(hidden_states_base=x, hidden_states_ctrl=side, **shared)
        states = [*skips, x]
        if residuals is not None:
            pairs = zip(states, residuals, strict=True)
            states = [state if r is None else state + r for state, r in pairs]
        *skips, x = states
        for block in network.up_blocks:
            count = len(block.resnets)
            skips, new = skips[:-count], skips[-count:]
            sides, beside = sides[:-count], sides[-count:]
            size = skips[-1].shape[2:] if skips else None
            x = block(
                hidden_states=x,
                res_hidden_states_tuple_base=tuple(new),
                res_hidden_states_tuple_ctrl=tuple(beside),
                upsample_size=size,
                **shared,
            )
        return network.base_conv_out(network.base_conv_act(network.base_conv_norm_out(x)))

    def _embed_time(
        self, backbone: UNetBackbone, n: int, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """The base's embedding, or a mix of it and the adapter's own where that has one."""
        emb = backbone.encoder.embed_time(n, t, text)
        network = self._network
        if not network.config.ctrl_learn_time_embedding:
            return emb
        steps = torch.as_tensor(t, device=emb.device).expand(n)
        sinusoids = network.base_time_proj(steps).to(emb.dtype)
        # the power is diffusers' own
        share = network.config.time_embedding_mix**0.3
        learnt, plain = (
            net(sinusoids) for net in (network.ctrl_time_embedding, network.base_time_embedding)
        )
        return emb + share * (learnt - plain)


def _check_adapter(adapter: dict[str, Any], backbone: UNetBackbone) -> None:
    """Raise UserError unless an adapter's config names the widths of the base."""
    base = backbone.unet.config
    for name, theirs in (
        ("base_block_out_channels", base.block_out_channels),
        ("cross_attention_dim", base.cross_attention_dim),
    ):
        width = adapter.get(name)
        if width is not None and _plain(width) != _plain(theirs):
            raise UserError(
                f"this ControlNet-XS was made for another base: its {name} is {width}, that of "
                f"{backbone.name} {theirs}."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def build(
    unet: Any,
    ratio: float,
    hint_widths: tuple[int, ...],
    config: dict[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """diffusers' fused model for `unet`, and the config of its adapter. config: a published
    adapter's, in place of ratio and widths.

    Its builders assume latents of 4 channels, so they see a UNet of 4; the layers that touch
    latents are put right afterwards. Raises UserError where the ratio gives no whole network.
    """
    from diffusers import ControlNetXSAdapter, UNet2DConditionModel, UNetControlNetXSModel
    from diffusers.utils import logging

    base = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its .to warns of every dtype
    of = f"of ratio {ratio}" if config is None else "of this config"
    try:
        standard = UNet2DConditionModel(**{**base, "in_channels": 4, "out_channels": 4})
        if config is None:
            adapter = ControlNetXSAdapter.from_unet(
                standard, size_ratio=ratio, conditioning_embedding_out_channels=hint_widths
            )
        else:
            adapter = ControlNetXSAdapter(**config)
        plain = {key: value for key, value in adapter.config.items() if not key.startswith("_")}
        network: Any = UNetControlNetXSModel.from_unet(standard, adapter)
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        raise UserError(f"a ControlNet-XS {of} cannot be built for this base: {error}.") from error
    finally:
        logging.set_verbosity(verbosity)
    ctrl = network.ctrl_conv_in
    if unet.config.in_channels != ctrl.in_channels:
        network.ctrl_conv_in = nn.Conv2d(unet.config.in_channels, ctrl.out_channels, 3, padding=1)
    return network, plain


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
