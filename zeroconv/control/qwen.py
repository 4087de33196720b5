"""ControlNets of Qwen-Image: a copy of the first blocks, a Linear after each.

The copy is diffusers' QwenImageControlNetModel. The hint is a latent of the base's own VAE, packed
as the noise is, embedded by a layer that starts at zero (`controlnet_x_embedder`). A union control
has no modes: it is called once for each hint.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zeroconv.backbones import Connection, TextStates
from zeroconv.backbones.flow.packing import PATCH, pack
from zeroconv.backbones.flow.qwen import QwenBackbone
from zeroconv.control.transformer import (
    TEXT_ATTENTION,
    TransformerControlNet,
    check_blocks,
    check_count,
    check_widths,
    copy_parts_,
    plain_entries,
    tokens,
)
from zeroconv.errors import UserError

_COPIED = ("time_text_embed", "txt_norm", "img_in", "txt_in", "transformer_blocks")
# of the base's config, what the network does not know
_NOT_OURS = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")


class QwenControlNet(TransformerControlNet):
    """K residuals (N, L, width), each for a run of the base's blocks."""

    class_name = "QwenImageControlNetModel"
    family = "Qwen-Image"
    one_text = True

    @classmethod
    def from_backbone(
        cls,
        backbone: QwenBackbone,
        *,
        blocks: int | None = None,
        condition: str | None = None,
        mask: bool = False,
    ) -> QwenControlNet:
        """A new one: the first blocks of the base copied, connections that add nothing.

        blocks: by default 5, or all of a base that has fewer. mask: it reads a mask beside its hint
        (inpaint). Raises UserError for more blocks than the base has.

        diffusers' `from_transformer` leaves the norm of the text states at ones; here it is copied
        too.
        """
        base = backbone.transformer
        most = len(backbone.connections)
        blocks = check_count(
            min(5, most) if blocks is None else blocks, most, "blocks", backbone.name
        )
        config = {k: v for k, v in plain_entries(base.config).items() if k not in _NOT_OURS}
        changes = {"num_layers": blocks, "extra_condition_channels": PATCH**2 * int(mask)}
        network = cls._network(**{**config, **changes})
        copy_parts_(network, base, _COPIED)
        return cls._new(network, backbone, condition)

    def _connections(self) -> tuple[Connection, ...]:
        return tokens(len(self.network.controlnet_blocks), self.network.inner_dim, PATCH)

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        return list(
            self.network(
                hidden_states=pack(z),
                controlnet_cond=pack(hint_embedding.to(z.dtype)),
                return_dict=False,
                **self._base.inputs(z, t, text),
            )
        )

    def _text_only(self) -> tuple[str, ...]:
        return (*TEXT_ATTENTION, "txt_mlp.")

    @property
    def mask_channels(self) -> int:
        return int(self.config["extra_condition_channels"]) // PATCH**2

    @classmethod
    def check_fit(cls, network: Any, backbone: QwenBackbone, where: object) -> None:
        theirs, base = network.config, backbone.transformer
        pairs = {
            "tokens": (network.inner_dim, base.inner_dim),
            "packed latents": (theirs.in_channels, base.config.in_channels),
            "text states": (theirs.joint_attention_dim, base.config.joint_attention_dim),
        }
        check_widths(where, backbone.name, pairs)
        check_blocks(
            where, backbone.name, len(network.controlnet_blocks), len(backbone.connections)
        )
        if theirs.extra_condition_channels not in (0, PATCH**2):
            raise UserError(
                f"{where} reads {theirs.extra_condition_channels} packed channels beside its hint; "
                f"zeroconv gives {PATCH**2}, a mask."
            )
