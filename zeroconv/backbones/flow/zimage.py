"""Z-Image as a backbone, driving diffusers' own transformer.

Residuals are tokens of the whole sequence, picture and caption, added after each layer. Prompts
have as many states as they have tokens, so text states have a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroconv.backbones.flow.sentences import padded, written_rows
from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.protocol import Connection, Defaults, TextStates
from zeroconv.backbones.spread import Rule, spread
from zeroconv.errors import UserError
from zeroconv.layers.fake import reckoning

MOST_TOKENS = 512


class ZImageBackbone(TransformerBackbone):
    """A frozen Z-Image. transformer: diffusers' ZImageTransformer2DModel. text_encoders: Qwen3."""

    family = "Z-Image"
    scheduler: ClassVar[dict[str, Any]] = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": False,
    }
    usual = Defaults(cfg=1.0)  # Turbo is distilled; the undistilled one is published with 4

    def __init__(self, transformer: Any, vae: nn.Module | None = None, *args: Any, **more: Any):
        super().__init__(transformer, vae, *args, **more)
        config = transformer.config
        if tuple(config.all_patch_size) != (2,) or tuple(config.all_f_patch_size) != (1,):
            raise UserError(f"{self.name}: zeroconv knows Z-Image with patches of 2 × 2 alone.")
        if config.siglip_feat_dim is not None:
            raise UserError(f"{self.name} is a Z-Image Omni, which zeroconv does not run.")
        self.connections = tuple(
            Connection(f"layer.{i}", transformer.dim, self.patch, "tokens", "sequence")
            for i in range(len(transformer.layers))
        )

    def predict(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """The velocity ε − z (N, C, H, W) of latents z (N, C, H, W).

        t (N,) or a scalar in (0, 1000]; text: hidden (N, L, D) and mask (N, L); residuals:
        (N, tokens, width), one a connection, or None; tokens behind the last are left alone.
        """
        self._check_size(z)
        captions = self.captions(text)
        output = self.transformer(
            self.pictures(z),
            self.time(t, z),
            captions,
            controlnet_block_samples=self._by_layer(residuals, z, captions),
            return_dict=False,
        )[0]
        # it predicts the way to the picture, not to the noise
        return -torch.stack(list(output))[:, :, 0]

    def pictures(self, z: Tensor) -> list[Tensor]:
        """Latents (N, C, H, W) → as the transformer takes them, a video of one frame each."""
        return list(z[:, :, None].unbind(0))

    def time(self, t: Tensor | int, z: Tensor) -> Tensor:
        """Its timesteps (N,) run from 0, noise, to 1, the picture."""
        return (1000 - torch.as_tensor(t, device=z.device).expand(len(z))) / 1000

    def captions(self, text: TextStates) -> list[Tensor]:
        """States of each prompt (L_i, D), without what fills it up."""
        if text.mask is None or reckoning():
            return list(text.hidden.unbind(0))
        return [hidden[mask] for hidden, mask in zip(text.hidden, text.mask, strict=True)]

    def spread(self, residuals: Sequence[Tensor], rule: Rule | None = None) -> list[Tensor | None]:
        """Residuals of a control → one a connection; a control has a mapping, its own layers."""
        return spread(residuals, rule or "interval", len(self.connections))

    def forget(self) -> None:
        self.transformer.rope_embedder.freqs_cis = None

    def _by_layer(
        self, residuals: Sequence[Tensor | None] | None, z: Tensor, captions: list[Tensor]
    ) -> dict[int, Tensor] | None:
        if residuals is None:
            return None
        longest = sequence_length(z, max(map(len, captions)))
        return {
            i: nn.functional.pad(r, (0, 0, 0, longest - r.shape[1])) if r.dim() else r
            for i, r in enumerate(residuals)
            if r is not None
        }

    def _embed(self, prompts: list[str], seconds: list[str]) -> TextStates:
        """The language model's states before its last layer, of the prompt as a message to it."""
        tokenizer, encoder = self.tokenizers[0], self.text_encoders[0]
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=True,
            )
            for prompt in prompts
        ]
        rows = []
        for tokens in written_rows(tokenizer, texts, MOST_TOKENS, "Z-Image"):
            out = encoder(input_ids=tokens.to(encoder.device), output_hidden_states=True)
            rows.append(out.hidden_states[-2][0])
        hidden, mask = padded(rows)
        return TextStates(hidden, mask=mask)


SEQUENCE = 32  # tokens of the picture and of a caption are filled up to a multiple of it


def sequence_length(z: Tensor, caption: int) -> int:
    """Tokens of the sequence of latents z (N, C, H, W) and a caption of so many tokens."""
    picture = z.shape[-2] * z.shape[-1] // 4
    return sum(-(-count // SEQUENCE) * SEQUENCE for count in (picture, caption))
