"""The network of Chroma's ControlNets. diffusers has none, so this one is put together from its
parts, as its FluxControlNetModel is from FLUX.1's: copies of the first double blocks, and a Linear
after each.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_chroma import (
    ChromaApproximator,
    ChromaCombinedTimestepTextProjEmbeddings,
    ChromaTransformerBlock,
)
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from torch import Tensor, nn

PARTS = 6  # shift, scale and gate of a stream, before attention and before the MLP


class ChromaControlNetModel(ModelMixin, ConfigMixin):
    """base_layers, base_single_layers: blocks of the base. The modulation's network makes rows for
    all of them, and is asked for those of the copied blocks alone.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 1,
        in_channels: int = 64,
        num_layers: int = 4,
        base_layers: int = 19,
        base_single_layers: int = 38,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        axes_dims_rope: tuple[int, ...] = (16, 56, 56),
        approximator_num_channels: int = 64,
        approximator_hidden_dim: int = 5120,
        approximator_layers: int = 5,
    ) -> None:
        super().__init__()
        self.inner_dim = width = num_attention_heads * attention_head_dim
        self.pos_embed = FluxPosEmbed(theta=10000, axes_dim=list(axes_dims_rope))
        rows = 3 * base_single_layers + 2 * PARTS * base_layers + 2
        self.time_text_embed = ChromaCombinedTimestepTextProjEmbeddings(
            num_channels=approximator_num_channels // 4, out_dim=rows
        )
        self.distilled_guidance_layer = ChromaApproximator(
            approximator_num_channels, width, approximator_hidden_dim, approximator_layers
        )
        self.context_embedder = nn.Linear(joint_attention_dim, width)
        self.x_embedder = nn.Linear(in_channels, width)
        self.controlnet_x_embedder = zeros(nn.Linear(in_channels, width))
        self.transformer_blocks = nn.ModuleList(
            ChromaTransformerBlock(width, num_attention_heads, attention_head_dim)
            for _ in range(num_layers)
        )
        self.controlnet_blocks = nn.ModuleList(
            zeros(nn.Linear(width, width)) for _ in range(num_layers)
        )

    def forward(
        self,
        hidden_states: Tensor,
        controlnet_cond: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        attention_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """Tokens (N, L, C) of noise and hint, text states (N, S, D), σ (N,), positions (L, 3) and
        (S, 3), mask (N, S + L) as the base reads it → a residual (N, L, width) a block.
        """
        x = self.x_embedder(hidden_states) + self.controlnet_x_embedder(controlnet_cond)
        text = self.context_embedder(encoder_hidden_states)
        modulation = self._modulation(timestep.to(x.dtype) * 1000)
        rotary = self.pos_embed(torch.cat((txt_ids, img_ids), dim=0))
        residuals = []
        for i, (block, joined) in enumerate(
            zip(self.transformer_blocks, self.controlnet_blocks, strict=True)
        ):
            text, x = block(
                hidden_states=x,
                encoder_hidden_states=text,
                temb=modulation[:, 2 * PARTS * i : 2 * PARTS * (i + 1)],
                image_rotary_emb=rotary,
                attention_mask=attention_mask,
            )
            residuals.append(joined(x))
        return residuals

    def _modulation(self, timestep: Tensor) -> Tensor:
        """(N, 12 · blocks, width): each block's rows for the picture, then those for the text."""
        image = 3 * self.config.base_single_layers
        text = image + PARTS * self.config.base_layers
        rows = [
            start + PARTS * i + part
            for i in range(len(self.transformer_blocks))
            for start in (image, text)
            for part in range(PARTS)
        ]
        return self.distilled_guidance_layer(self.time_text_embed(timestep)[:, rows])


def zeros(layer: nn.Linear) -> nn.Linear:
    """It adds nothing at first."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
