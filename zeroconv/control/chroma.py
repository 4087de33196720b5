"""ControlNets of Chroma: copies of the first double blocks, a Linear after each. The hint is a
latent of the base's own VAE, embedded by a layer that starts at zero.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zeroconv.backbones import Connection, TextStates
from zeroconv.backbones.flow.chroma import ChromaBackbone
from zeroconv.backbones.flow.packing import PATCH, pack
from zeroconv.backbones.spread import Rule, numbers
from zeroconv.control.transformer import (
    TransformerControlNet,
    check_blocks,
    check_count,
    check_widths,
    copy_parts_,
    plain_entries,
    tokens,
)

_COPIED = ("distilled_guidance_layer", "context_embedder", "x_embedder", "transformer_blocks")


class ChromaControlNet(TransformerControlNet):
    """Residuals (N, L, width) of double blocks, spread over the base's in runs of one length."""

    class_name = "ChromaControlNetModel"
    family = "Chroma"

    @classmethod
    def network_class(cls) -> Any:
        from zeroconv.control.chroma_network import ChromaControlNetModel

        return ChromaControlNetModel

    @classmethod
    def from_backbone(
        cls, backbone: ChromaBackbone, *, blocks: int | None = None, condition: str | None = None
    ) -> ChromaControlNet:
        """A new one: the first blocks of the base copied, connections that add nothing.

        blocks: how many double blocks; by default 4, or all of a base that has fewer. Raises
        UserError for more than the base has.
        """
        base, doubles = backbone.transformer, backbone.doubles
        blocks = min(4, doubles) if blocks is None else blocks
        check_count(blocks, doubles, "double blocks", backbone.name)
        config = {k: v for k, v in plain_entries(base.config).items() if k != "out_channels"}
        config |= {"num_layers": blocks, "base_layers": config["num_layers"]}
        config["base_single_layers"] = config.pop("num_single_layers")
        network = cls._network(**config)
        copy_parts_(network, base, _COPIED)
        return cls._new(network, backbone, condition)

    def _connections(self) -> tuple[Connection, ...]:
        return tokens(len(self.network.controlnet_blocks), self.network.inner_dim, PATCH, "double")

    @property
    def spread(self) -> Rule:
        """Double block → residual."""
        places = numbers("ceil", len(self.connections), self._base.doubles)
        return dict(enumerate(places))  # type: ignore[arg-type]

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        return self.network(
            hidden_states=pack(z),
            controlnet_cond=pack(hint_embedding.to(z.dtype)),
            **self._base.inputs(z, t, text),
        )

    @classmethod
    def check_fit(cls, network: Any, backbone: ChromaBackbone, where: object) -> None:
        theirs, base = network.config, backbone.transformer
        pairs = {
            "tokens": (network.inner_dim, base.inner_dim),
            "packed latents": (theirs.in_channels, backbone.latent_channels * PATCH**2),
            "text states": (theirs.joint_attention_dim, base.config.joint_attention_dim),
            "double blocks": (theirs.base_layers, backbone.doubles),
            "single blocks": (theirs.base_single_layers, len(base.single_transformer_blocks)),
        }
        check_widths(where, backbone.name, pairs)
        check_blocks(where, backbone.name, len(network.controlnet_blocks), backbone.doubles)
