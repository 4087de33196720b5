"""ControlNets of Stable Diffusion 3 and 3.5: a copy of the first blocks, a Linear after each.

The copy is diffusers' SD3ControlNetModel. The hint is a latent of the base's own VAE, embedded in
patches by a layer that starts at zero (`pos_embed_input`) and added to the embedded noise.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones import Connection, TextStates
from zeroconv.backbones.flow.sd3 import SD3Backbone
from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.spread import spread
from zeroconv.control.transformer import (
    TransformerControlNet,
    check_blocks,
    check_count,
    check_widths,
    copy_parts_,
    plain_entries,
    rows,
    tokens,
)
from zeroconv.errors import UserError

_COPIED = ("pos_embed", "time_text_embed", "context_embedder", "transformer_blocks")


class SD3ControlNet(TransformerControlNet):
    """K residuals (N, L, width), spread over the base's blocks by the base's rule.

    Three variants of the published ones follow from the config: `force_zeros_for_pooled_projection`
    reads no pooled text, and hints without the VAE's shift; `use_pos_embed` False embeds the noise
    by the base's own patch embedding; `extra_conditioning_channels` 1 reads a mask beside the hint,
    and its hint, a picture with a hole, always with the shift.
    """

    class_name = "SD3ControlNetModel"
    family = "Stable Diffusion 3"
    joined = ("pos_embed_input.", "controlnet_blocks.")

    @classmethod
    def from_backbone(
        cls,
        backbone: SD3Backbone,
        *,
        blocks: int = 12,
        condition: str | None = None,
        zeros_for_pooled: bool = False,
        mask: bool = False,
    ) -> SD3ControlNet:
        """A new one: the first `blocks` blocks of the base copied, connections that add nothing.

        mask: it reads a mask beside its hint (inpaint). Raises UserError for more blocks than can
        be copied: the base's last one has no output for text. Warns where the last residual would
        be added nowhere.
        """
        base = backbone.transformer
        check_count(blocks, len(backbone.connections), "blocks", backbone.name)
        _note_unused(backbone, blocks)
        changes = {
            "num_layers": blocks,
            "force_zeros_for_pooled_projection": zeros_for_pooled,
            "extra_conditioning_channels": int(mask),
        }
        network = cls._network(**{**plain_entries(base.config), **changes})
        copy_parts_(network, base, _COPIED)
        return cls._new(network, backbone, condition)

    def _connections(self) -> tuple[Connection, ...]:
        network = self.network
        return tokens(len(network.controlnet_blocks), network.inner_dim, self.config["patch_size"])

    @property
    def _patches(self) -> nn.Module | None:
        """The base's patch embedding, where it has none."""
        return self._base.transformer.pos_embed if self.network.pos_embed is None else None

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        if text.pooled is None:
            raise UserError("a control of Stable Diffusion 3 needs pooled text states.")
        zeros = self.config["force_zeros_for_pooled_projection"]
        patches = self._patches
        reads_text = self.network.context_embedder is not None
        return list(
            self.network(
                hidden_states=z if patches is None else patches(z).to(z.dtype),
                controlnet_cond=hint_embedding.to(z.dtype),
                encoder_hidden_states=text.hidden if reads_text else None,
                pooled_projections=torch.zeros_like(text.pooled) if zeros else text.pooled,
                timestep=rows(t, z),
                return_dict=False,
            )[0]
        )

    def _encoded(
        self, backbone: TransformerBackbone, hint: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        with torch.autocast(hint.device.type, enabled=False):  # in the numbers of the VAE
            moments = backbone.encode_image(hint * 2 - 1)
        return backbone.latents_from_moments(
            moments, generator, generator is not None, self._shifted
        )

    @property
    def _shifted(self) -> bool:
        """Whether hints are read less the VAE's shift."""
        zeros = self.config["force_zeros_for_pooled_projection"]
        return bool(self.mask_channels) or not zeros

    @property
    def hint_key(self) -> str:
        return f"{super().hint_key} {self._shifted}"

    @property
    def mask_channels(self) -> int:
        return int(self.config["extra_conditioning_channels"])

    def networks(self) -> list[nn.Module]:
        """Itself, and the base's patch embedding where it has none."""
        patches = self._patches
        return [self] if patches is None else [self, patches]

    @classmethod
    def check_fit(cls, network: Any, backbone: SD3Backbone, where: object) -> None:
        theirs, base = network.config, backbone.transformer.config
        pairs = {
            "tokens": (network.inner_dim, backbone.transformer.inner_dim),
            "patches": (theirs.patch_size, base.patch_size),
            "latents": (theirs.in_channels, base.in_channels),
            "pooled text states": (theirs.pooled_projection_dim, base.pooled_projection_dim),
            "text states": (theirs.joint_attention_dim, base.joint_attention_dim),
        }
        check_widths(where, backbone.name, pairs)
        blocks = len(backbone.transformer.transformer_blocks)
        check_blocks(where, backbone.name, len(network.controlnet_blocks), blocks)
        if theirs.extra_conditioning_channels not in (0, 1):
            raise UserError(
                f"{where} reads {theirs.extra_conditioning_channels} channels beside its hint; "
                "zeroconv gives one, a mask."
            )


def _note_unused(backbone: SD3Backbone, blocks: int) -> None:
    """The base's last block takes no residual, so the last of them may reach none."""
    reached = set(spread(range(blocks), "interval", len(backbone.connections) + 1)[:-1])
    if blocks - 1 not in reached:
        warnings.warn(
            f"of {blocks} copied blocks the last is of no use: its residual would belong to the "
            f"last block of {backbone.name}, which takes none; copy another number of blocks.",
            stacklevel=3,
        )
