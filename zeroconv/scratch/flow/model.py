"""A tiny transformer of the FLUX family with its two text encoders, with new weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones.flow.packing import pack, positions, unpack
from zeroconv.scratch.embedded import PLAYROOM

TRANSFORMER: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 32,  # 2 × 2 latents of 8 channels
    "num_layers": 3,
    "num_single_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 6,
    "joint_attention_dim": 160,
    "pooled_projection_dim": 96,
    "guidance_embeds": False,
    "axes_dims_rope": (8, 12, 12),
}
POOLED: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "projection_dim": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}
STATES: dict[str, Any] = {
    "d_model": 160,
    "d_kv": 32,
    "d_ff": 448,
    "num_layers": 3,
    "num_heads": 5,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "is_encoder_decoder": False,
    "use_cache": False,
}


class FlowModel(nn.Module):
    """Transformer, CLIP for the pooled vector, T5 for the states; trained as one, weights are new.

    The arguments replace entries of the configs, for tests.
    """

    def __init__(
        self,
        sentences: int,
        transformer: dict | None = None,
        pooled: dict | None = None,
        states: dict | None = None,
    ) -> None:
        super().__init__()
        from diffusers import FluxTransformer2DModel
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

        self.transformer = FluxTransformer2DModel(**{**TRANSFORMER, **(transformer or {})})
        config = CLIPTextConfig.from_pretrained(PLAYROOM / "text_encoder", trust_remote_code=False)
        for name, value in {**POOLED, **(pooled or {})}.items():
            setattr(config, name, value)
        self.clip = CLIPTextModel(config).float()
        asked = {**STATES, **(states or {}), "vocab_size": sentences}
        self.t5 = T5EncoderModel(T5Config(**asked)).float()
        self._start_as_nothing()

    def _start_as_nothing(self) -> None:
        """Blocks begin as the identity and the prediction as 0 (adaLN-zero, Peebles & Xie 2023)."""
        transformer = self.transformer
        modulations = [transformer.norm_out.linear, transformer.proj_out]

        for block in transformer.transformer_blocks:
            modulations += [block.norm1.linear, block.norm1_context.linear]
        for block in transformer.single_transformer_blocks:
            modulations.append(block.norm.linear)

        for linear in modulations:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, z: Tensor, sigma: Tensor, tokens: Tensor, sentences: Tensor, prompt: Tensor
    ) -> Tensor:
        """z (B, C, h, w), sigma (B,), two token rows (P, L), prompt (B,) → velocity like z."""
        size = (z.shape[2], z.shape[3])
        pooled = self.clip(tokens).pooler_output[prompt]
        states = self.t5(sentences).last_hidden_state[prompt]

        packed = self.transformer(
            hidden_states=pack(z),
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=sigma,
            img_ids=positions(size, z.device),
            txt_ids=torch.zeros(states.shape[1], 3, device=z.device),
            return_dict=False,
        )[0]
        return unpack(packed, size)
