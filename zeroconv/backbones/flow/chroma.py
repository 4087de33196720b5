"""Chroma as a backbone: FLUX.1's blocks whose shifts, scales and gates one small network makes
(diffusers' ChromaTransformer2DModel).

It reads T5 alone, no pooled vector and no guidance scale, and is guided by the negative prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.flow.packing import PATCH, positions
from zeroconv.backbones.flow.sentences import t5_length, tokens_of
from zeroconv.backbones.protocol import Defaults, TextStates
from zeroconv.errors import UserError


class ChromaBackbone(FluxBackbone):
    """A frozen Chroma. transformer: diffusers' ChromaTransformer2DModel. text_encoders: T5.

    `TextStates.pooled` is (N, L) or None: 1 for the tokens of a prompt and the first behind them,
    0 for what else fills up. diffusers' pipeline adds this to the scores of attention, and so does
    this class: what fills up is weighed less.
    """

    family = "Chroma"
    usual = unguided = Defaults(cfg=5.0)

    def inputs(self, z: Tensor, t: Tensor | int, text: TextStates) -> dict[str, Any]:
        return {
            "timestep": torch.as_tensor(t, device=z.device).expand(len(z)) / 1000,
            "encoder_hidden_states": text.hidden,
            "attention_mask": self._mask(z, text),
            "img_ids": positions((z.shape[-2], z.shape[-1]), z.device),
            "txt_ids": torch.zeros(text.hidden.shape[1], 3, device=z.device),
        }

    def _mask(self, z: Tensor, text: TextStates) -> Tensor | None:
        """(N, S + L) of text and picture. None: every token is there."""
        if text.pooled is None:
            return None
        there = text.pooled.to(text.hidden)
        pixels = there.new_ones(len(there), z.shape[-2] * z.shape[-1] // PATCH**2)
        return torch.cat([there, pixels], dim=1)

    def _channels_beside(self) -> int:
        """None. Raises UserError for a transformer that reads more than its latent."""
        if more := super()._channels_beside():
            raise UserError(
                f"{self.name} is a Chroma that reads {more} channels beside its latent."
            )
        return 0

    def _embed(self, prompts: list[str], seconds: list[str]) -> TextStates:
        """T5 does not look at what fills up (unlike FLUX.1's)."""
        encoder, tokenizer = self.text_encoders[0], self.tokenizers[0]
        length = t5_length(tokenizer)
        tokens = tokens_of(tokenizer, prompts, length, "T5")
        mask = _there(tokenizer, prompts, length).to(encoder.device)
        hidden = encoder(tokens.to(encoder.device), attention_mask=mask)[0]
        places = torch.arange(length, device=mask.device)
        seen = places[None] <= mask.sum(dim=1, keepdim=True)
        return TextStates(hidden, seen.to(hidden))


def _there(tokenizer: Any, texts: Sequence[str], length: int) -> Tensor:
    """(N, length): 1 for the tokens of a text, 0 for what fills up."""
    read = tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return read.attention_mask
