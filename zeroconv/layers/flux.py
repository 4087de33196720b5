"""Blocks of FLUX.1 that train with less work than diffusers' own; what they compute is the same.

- Nothing reads the text that the last block of a network makes, so it is not made.
- The first frozen block behind a control's residual needs no gradient of its text. Text and
  picture are multiplied one by one there, and the text's part of the backward pass is left out.
- In float32 norm, scale and shift are one operation, gate and sum another; on a processor the norm
  of queries and keys and their rotary embedding too (`zeroconv.layers.rotary`).
- A single block's last layer is `zeroconv.layers.joined` on a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import (
    FluxAttnProcessor,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch import Tensor, nn
from torch.nn import functional

from zeroconv.layers.cpu import CpuLinear
from zeroconv.layers.joined import Joined
from zeroconv.layers.quantised import QuantisedLayer, in_parts
from zeroconv.layers.rotary import angles, normed_and_turned

Rotary = tuple[Tensor, Tensor] | None


def use_flux_layers_(*modules: nn.Module) -> None:
    """Let FLUX.1's blocks within compute as this file does; their names, weights and state dicts
    stay as they are. The last block of each network makes no text.
    """
    for module in modules:
        for network in module.modules():
            doubles = getattr(network, "transformer_blocks", None)
            if not isinstance(doubles, nn.ModuleList):
                continue
            singles = getattr(network, "single_transformer_blocks", ())
            blocks = [block for block in (*doubles, *singles) if type(block) in _CLASSES]
            for block in blocks:
                block.__class__ = _CLASSES[type(block)]
            if blocks:
                blocks[-1].picture_only = True  # type: ignore[assignment]


class LeanDoubleBlock(FluxTransformerBlock):
    picture_only = False  # gives the text back as it came

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Rotary = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        image, text = hidden_states, encoder_hidden_states
        if joint_attention_kwargs or not _is_plain(self.attn):
            return super().forward(image, text, temb, image_rotary_emb, joint_attention_kwargs)
        ours = _modulation(self.norm1, temb, 6)
        theirs = _modulation(self.norm1_context, temb, 6)
        attended = _attend(
            self.attn,
            _modulated(self.norm1.norm, image, *ours[:2]),
            _modulated(self.norm1_context.norm, text, *theirs[:2]),
            image_rotary_emb,
            self.picture_only,
        )
        length = image.shape[1]
        made = self.attn.to_out[1](self.attn.to_out[0](attended[:, -length:].contiguous()))
        image = self._ended(image, made, ours[2:], self.norm2, self.ff)
        if self.picture_only:
            return text, image
        made = self.attn.to_add_out(attended[:, :-length].contiguous())
        text = self._ended(text, made, theirs[2:], self.norm2_context, self.ff_context)
        return _finite(text), image

    def _ended(
        self, x: Tensor, made: Tensor, modulation: Sequence[Tensor], norm: Any, ff: nn.Module
    ) -> Tensor:
        """Tokens with what attention made of them, through the feed-forward layers."""
        gate, shift, scale, gate_ff = modulation
        x = _gated(x, gate, made)
        return _gated(x, gate_ff, ff(_modulated(norm, x, shift, scale)))


class LeanSingleBlock(FluxSingleTransformerBlock):
    picture_only = False  # gives the text back as it came

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Rotary = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        image, text = hidden_states, encoder_hidden_states
        if joint_attention_kwargs or not _is_plain(self.attn):
            return super().forward(image, text, temb, image_rotary_emb, joint_attention_kwargs)
        apart = self.picture_only or text.requires_grad != image.requires_grad
        streams = [text, image] if apart else [torch.cat([text, image], dim=1)]
        shift, scale, gate = _modulation(self.norm, temb, 3)
        normed = [_modulated(self.norm.norm, x, shift, scale) for x in streams]
        asked = normed[-1:] if self.picture_only else normed
        attended = self._attend(normed, asked, image_rotary_emb)
        streams = streams[-len(asked) :]
        parts = attended.split([x.shape[1] for x in asked], dim=1)
        made = [
            _finite(_gated(x, gate, self._joined(part, self.proj_mlp(y))))
            for x, part, y in zip(streams, parts, asked, strict=True)
        ]
        if self.picture_only:
            return text, made[0]
        if apart:
            return made[0], made[1]
        return made[0][:, : text.shape[1]], made[0][:, text.shape[1] :]

    def _attend(self, normed: list[Tensor], asked: list[Tensor], rotary: Rotary) -> Tensor:
        """All of `normed` is looked at, by `asked`, its last: (N, L, C) of what asks."""
        attn: Any = self.attn
        # weights that are cast, are so once
        together = torch.cat(normed, dim=1) if len(asked) < len(normed) else None
        read = normed if together is None else [together]
        keys = [(attn.to_k(x), attn.norm_k) for x in read]
        queries = [(attn.to_q(x), attn.norm_q) for x in asked]
        value = [attn.to_v(x) for x in read]
        return _attention(attn, queries, keys, value, rotary)

    def _joined(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """`proj_out` of attention beside GELU of the hidden layer."""
        layer: Any = self.proj_out
        plain = type(layer) is QuantisedLayer and layer.scale is None
        if (plain or type(layer) is CpuLinear) and in_parts(attended) and _is_exact(attended):
            return Joined.apply(attended, hidden, layer.weight, layer.bias)
        return layer(torch.cat([attended, self.act_mlp(hidden)], dim=2))


_CLASSES: dict[type, Any] = {
    FluxTransformerBlock: LeanDoubleBlock,
    FluxSingleTransformerBlock: LeanSingleBlock,
}


def _is_plain(attn: Any) -> bool:
    """Whether attention is diffusers' usual one, without adapters."""
    processor = attn.processor
    usual = type(processor) is FluxAttnProcessor and processor._parallel_config is None
    return usual and not attn.fused_projections


def _is_exact(x: Tensor) -> bool:
    """Whether float32 goes in and comes out, so that operations may be joined."""
    return x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)


# ---------------------------------------------------------------- norms and gates


def _modulation(norm: Any, temb: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Shift, scale and gate (N, C), of a double block twice."""
    return norm.linear(norm.silu(temb)).chunk(parts, dim=1)


def _modulated(norm: nn.LayerNorm, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift of x (N, L, C), with shift and scale (N, C)."""
    if not _is_exact(x):
        return norm(x) * (1 + scale[:, None]) + shift[:, None]
    if len(x) == 1:
        weight, bias = 1 + scale[0], shift[0]
        return functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
    return torch.addcmul(shift[:, None], norm(x), 1 + scale[:, None])


def _gated(x: Tensor, gate: Tensor, made: Tensor) -> Tensor:
    """x + gate · made of tokens (N, L, C), with gate (N, C)."""
    if _is_exact(x) and made.dtype == x.dtype:
        return torch.addcmul(x, gate[:, None], made)
    return x + gate[:, None] * made


def _finite(x: Tensor) -> Tensor:
    """As diffusers bounds float16."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x


# ---------------------------------------------------------------- attention


def _attend(attn: Any, image: Tensor, text: Tensor, rotary: Rotary, picture_only: bool) -> Tensor:
    """A double block's attention over text and picture: (N, L, C) of both, or of the picture."""
    keys = [(attn.add_k_proj(text), attn.norm_added_k), (attn.to_k(image), attn.norm_k)]
    value = [attn.add_v_proj(text), attn.to_v(image)]
    queries = [(attn.to_q(image), attn.norm_q)]
    if not picture_only:
        queries = [(attn.add_q_proj(text), attn.norm_added_q), *queries]
    return _attention(attn, queries, keys, value, rotary)


def _attention(
    attn: Any,
    queries: list[tuple[Tensor, nn.Module]],
    keys: list[tuple[Tensor, nn.Module]],
    values: list[Tensor],
    rotary: Rotary,
) -> Tensor:
    """Streams of tokens (N, L, C), queries and keys with their norm → (N, L, C) of what asks, which
    are the last of what is looked at.
    """
    value = values[0] if len(values) == 1 else torch.cat(values, dim=1)
    made = dispatch_attention_fn(
        _turned(queries, attn.head_dim, rotary),
        _turned(keys, attn.head_dim, rotary),
        value.unflatten(-1, (-1, attn.head_dim)),
        backend=attn.processor._attention_backend,
        parallel_config=None,
    )
    return made.flatten(2, 3).to(value.dtype)


def _turned(streams: list[tuple[Tensor, nn.Module]], width: int, rotary: Rotary) -> Tensor:
    """Streams (N, L, C), each with its norm → (N, ΣL, H, D), normed and with rotary embedding; of
    fewer tokens than the tables have rows, for those at their end.
    """
    heads = [(x.unflatten(-1, (-1, width)), norm) for x, norm in streams]
    count = sum(x.shape[1] for x, _ in heads)
    if rotary is not None:
        rotary = (rotary[0][-count:], rotary[1][-count:])
    if rotary is not None and all(_joins(x, norm) for x, norm in heads):
        norms: list[Any] = [norm for _, norm in heads]
        pairs = [(x, norm.weight) for (x, _), norm in zip(heads, norms, strict=True)]
        return normed_and_turned(pairs, angles(*rotary), norms[0].eps)
    parts = [norm(x) for x, norm in heads]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return whole if rotary is None else apply_rotary_emb(whole, rotary, sequence_dim=1)


def _joins(x: Tensor, norm: nn.Module) -> bool:
    """Whether norm and rotary embedding are one operation: on a processor, in float32."""
    known = type(norm) is nn.RMSNorm and norm.weight is not None and norm.eps is not None
    return known and x.device.type == "cpu" and _is_exact(x) and norm.weight.dtype == x.dtype
