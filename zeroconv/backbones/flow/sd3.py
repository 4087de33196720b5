"""Stable Diffusion 3 and 3.5 as a backbone, driving diffusers' own transformer.

Residuals are tokens, added to those of the picture after each joint block but the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroconv.backbones.flow.sentences import clip_states, t5_states
from zeroconv.backbones.flow.transformer import TransformerBackbone, by_block
from zeroconv.backbones.protocol import Connection, Defaults, TextStates
from zeroconv.backbones.spread import Rule, spread

MOST_T5 = 256  # tokens of T5, as diffusers' pipeline


class SD3Backbone(TransformerBackbone):
    """A frozen Stable Diffusion 3. transformer: diffusers' SD3Transformer2DModel.

    text_encoders: two CLIPs with projections, and T5, which may be missing: its states are zeros
    then, as in diffusers.
    """

    family = "Stable Diffusion 3"
    scheduler: ClassVar[dict[str, Any]] = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": 3.0,
    }
    usual = Defaults(cfg=7.0)

    def __init__(self, transformer: Any, vae: nn.Module | None = None, *args: Any, **more: Any):
        super().__init__(transformer, vae, *args, **more)
        blocks, config = transformer.transformer_blocks, transformer.config
        self.patch = config.patch_size  # type: ignore[misc]
        # numbers of the blocks that a residual may be added after
        self._taking = [i for i, block in enumerate(blocks) if not block.context_pre_only]
        self.connections = tuple(
            Connection(f"block.{i}", transformer.inner_dim, config.patch_size, "tokens")
            for i in self._taking
        )

    def predict(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """The velocity ε − z (N, C, H, W) of latents z (N, C, H, W).

        t (N,) or a scalar in (0, 1000]; text: hidden (N, L, D) and pooled (N, P); residuals:
        (N, H·W / patch², width), one a connection, or None. Raises UserError for a size that gives
        no number of patches, or more than there are positions for.
        """
        # its patch embedding drops a row that fills no patch; what is too large raises inside
        self._check_size(z, self.transformer.config.pos_embed_max_size)
        return self.transformer(
            hidden_states=z,
            encoder_hidden_states=text.hidden,
            pooled_projections=self._pooled(text),
            timestep=torch.as_tensor(t, device=z.device).expand(len(z)),
            block_controlnet_hidden_states=self._by_block(residuals, z),
            return_dict=False,
        )[0]

    def spread(self, residuals: Sequence[Tensor], rule: Rule | None = None) -> list[Tensor | None]:
        """Residuals of a control → one a connection, by "interval" over all blocks (diffusers)."""
        blocks = len(self.transformer.transformer_blocks)
        every = spread(residuals, rule or "interval", blocks)
        return [every[i] for i in self._taking]

    def sigmas(self, steps: int) -> list[float] | None:
        """Those of diffusers' scheduler."""
        return None

    @property
    def default_size(self) -> int:
        return self.transformer.config.sample_size * self.latent_scale

    def _embed(self, prompts: list[str], seconds: list[str]) -> TextStates:
        """The two CLIPs' states side by side, filled up to T5's width, and T5's behind them."""
        clips = [
            clip_states(encoder, tokenizer, texts)
            for encoder, tokenizer, texts in zip(
                self.text_encoders[:2], self.tokenizers[:2], (prompts, seconds), strict=True
            )
        ]
        hidden = torch.cat([states for states, _ in clips], dim=-1)
        if len(self.text_encoders) > 2:
            sentence = t5_states(self.text_encoders[2], self.tokenizers[2], prompts, MOST_T5)
        else:
            width = self.transformer.config.joint_attention_dim
            sentence = hidden.new_zeros(len(prompts), MOST_T5, width)
        hidden = nn.functional.pad(hidden, (0, sentence.shape[-1] - hidden.shape[-1]))
        pooled = torch.cat([vector for _, vector in clips], dim=-1)
        return TextStates(torch.cat([hidden, sentence.to(hidden)], dim=1), pooled)

    def _by_block(
        self, residuals: Sequence[Tensor | None] | None, z: Tensor
    ) -> list[Tensor] | None:
        """A tensor for every block, as diffusers counts them: also for those that take none."""
        if residuals is None:
            return None
        every: list[Tensor | None] = [None] * len(self.transformer.transformer_blocks)
        for i, residual in zip(self._taking, residuals, strict=True):
            every[i] = residual
        return by_block(every, z)
