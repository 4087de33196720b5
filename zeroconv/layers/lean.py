"""Blocks of a UNet in as few calls of torch as they need, for sampling small networks on a CPU.

The playroom's UNet calls 800 modules a step, each of which costs Python microseconds beside
arithmetic of 50. Here a residual block and a transformer compute what diffusers' classes compute,
in float32 and without gradients. They hold the parameters of their layers, and keep the keys and
values of the text. Every sum is that of the plain blocks within `sampling_layers`, so no bit
differs between a block that is lean and one that is not.

A block that has something else than what is written here, or that something else has changed (a
hook, a replaced forward pass, a quantised layer), is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional

from zeroconv.layers.convolutions import conv1, conv3, is_same_size
from zeroconv.layers.norms import group_norm

KEPT = 3  # text states whose keys and values are remembered: the halves of guidance, and both


def lean_forward(block: nn.Module) -> Callable[..., Any] | None:
    """The leaner forward pass of a block; None where there is none for it."""
    if type(block) is ResnetBlock2D and _is_plain_resnet(block):
        return LeanResnet(block)
    if type(block) is Transformer2DModel and _is_plain_transformer(block):
        return LeanTransformer(block)
    return None


def same_layout(forward: Callable[..., Any], hidden_states: Tensor, *rest: Any, **more: Any) -> Any:
    """A transformer's own forward pass; its output is channels last if its input is, as that of a
    lean one. diffusers' is channels first, and group norms would sum it in another order.
    """
    made = forward(hidden_states, *rest, **more)
    if not isinstance(made, tuple) or not _fits(hidden_states):
        return made
    # a copy, since `contiguous` leaves the strides of pictures of one position
    rows = made[0].permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    return (rows.permute(0, 3, 1, 2), *made[1:])


# ---------------------------------------------------------------- what is known here


def _is_plain(layer: Any, kind: type[nn.Module]) -> bool:
    """A layer of this very class whose call is its forward pass, with float32 weights."""
    if type(layer) is not kind or "forward" in vars(layer):
        return False
    own: nn.Module = layer
    if own._forward_hooks or own._forward_pre_hooks:
        return False
    weights = own._parameters.values()
    return all(weight is None or weight.dtype == torch.float32 for weight in weights)


def _is_plain_resnet(block: Any) -> bool:
    projection, shortcut = block.time_emb_proj, block.conv_shortcut
    return (
        _is_plain(block, ResnetBlock2D)
        and block.time_embedding_norm
        in (["group", "default"] if projection is None else ["default"])
        and block.upsample is None
        and block.downsample is None
        and type(block.nonlinearity) is nn.SiLU
        and all(_is_plain(norm, nn.GroupNorm) for norm in (block.norm1, block.norm2))
        and all(_is_plain_conv(conv, 3) for conv in (block.conv1, block.conv2))
        and (projection is None or (_is_plain(projection, nn.Linear) and not block.skip_time_act))
        and (shortcut is None or _is_plain_conv(shortcut, 1))
    )


def _is_plain_conv(conv: Any, side: int) -> bool:
    return _is_plain(conv, nn.Conv2d) and is_same_size(conv, side)


def _is_plain_transformer(model: Any) -> bool:
    linear = model.use_linear_projection
    return (
        _is_plain(model, Transformer2DModel)
        and model.is_input_continuous
        and _is_plain(model.norm, nn.GroupNorm)
        and all(
            _is_plain(layer, nn.Linear) if linear else _is_plain_conv(layer, 1)
            for layer in (model.proj_in, model.proj_out)
        )
        and all(map(_is_plain_block, model.transformer_blocks))
    )


def _is_plain_block(block: Any) -> bool:
    return (
        _is_plain(block, BasicTransformerBlock)
        and block.norm_type == "layer_norm"
        and block.pos_embed is None
        and block._chunk_size is None
        and not block.only_cross_attention
        and not hasattr(block, "fuser")
        and all(_is_plain(norm, nn.LayerNorm) for norm in (block.norm1, block.norm2, block.norm3))
        and not block.attn1.is_cross_attention
        and all(_is_plain_attention(layer) for layer in (block.attn1, block.attn2))
        and len(block.ff.net) == 3
        and _is_plain(block.ff, type(block.ff))
        and _is_plain(block.ff.net[0], GEGLU)
        and all(_is_plain(layer, nn.Linear) for layer in (block.ff.net[0].proj, block.ff.net[2]))
    )


def _is_plain_attention(layer: Any) -> bool:
    linear = [layer.to_q, layer.to_k, layer.to_v, layer.to_out[0]]
    extra = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k")
    return (
        _is_plain(layer, Attention)
        and type(layer.processor) is AttnProcessor2_0
        and not any(getattr(layer, name, None) for name in extra)
        and not layer.residual_connection
        and layer.rescale_output_factor == 1
        and all(_is_plain(part, nn.Linear) for part in linear)
    )


# ---------------------------------------------------------------- residual blocks


class LeanResnet:
    """The forward pass of a `ResnetBlock2D`."""

    def __init__(self, block: Any) -> None:
        self.plain, self.norms = block.forward, (block.norm1, block.norm2)
        # the parameters themselves: to ask a module for one takes a microsecond
        self.convs = [(conv.weight, conv.bias) for conv in (block.conv1, block.conv2)]
        time, shortcut = block.time_emb_proj, block.conv_shortcut
        self.time = None if time is None else (time.weight, time.bias)
        self.shortcut = None if shortcut is None else (shortcut.weight, shortcut.bias)
        self.scale = block.output_scale_factor

    def __call__(self, x: Tensor, temb: Tensor | None, *rest: Any, **more: Any) -> Tensor:
        """x (N, C, H, W), temb (N, D) or None → (N, C', H, W), channels last."""
        if rest or more or not _fits(x) or (temb is None) != (self.time is None):
            return self.plain(x, temb, *rest, **more)
        h = conv3(group_norm(self.norms[0], x, silu=True), *self.convs[0])
        if temb is not None and self.time is not None:
            shift = functional.linear(functional.silu(temb), *self.time)
            h = h + shift[:, :, None, None]
        h = conv3(group_norm(self.norms[1], h, silu=True), *self.convs[1])
        h = (x if self.shortcut is None else conv1(x, *self.shortcut)) + h
        return h if self.scale == 1 else h.div_(self.scale)


# ---------------------------------------------------------------- transformers


class LeanTransformer:
    """The forward pass of a `Transformer2DModel` of a UNet."""

    def __init__(self, model: Any) -> None:
        self.plain, self.norm = model.forward, model.norm
        self.ends = [(end.weight, end.bias) for end in (model.proj_in, model.proj_out)]
        self.blocks = [LeanBlock(block) for block in model.transformer_blocks]

    def __call__(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **more: Any,
    ) -> Any:
        """x (N, C, H, W), text (N, L, D) → ((N, C, H, W),)."""
        x, text = hidden_states, encoder_hidden_states
        asked = [name for name, value in more.items() if value is not None]
        changed = any(block.is_changed() for block in self.blocks)
        if asked != ["return_dict"] or more["return_dict"] or text is None or changed:
            return same_layout(self.plain, x, text, **more)
        if not _fits(x):
            return same_layout(self.plain, x, text, **more)
        (first, first_bias), (last, last_bias) = self.ends
        n, _, height, width = x.shape
        rows = group_norm(self.norm, x).permute(0, 2, 3, 1).flatten(1, 2)  # (N, H W, C)
        rows = functional.linear(rows, first.flatten(1), first_bias)
        for block in self.blocks:
            rows = block(rows, text)
        rows = functional.linear(rows, last.flatten(1), last_bias)
        out = rows.view(n, height, width, -1) + x.permute(0, 2, 3, 1)
        return (out.permute(0, 3, 1, 2),)


class LeanBlock:
    """A `BasicTransformerBlock` with attention over the picture, over the text, and GEGLU."""

    def __init__(self, block: Any) -> None:
        self.layers = block.attn1, block.attn2
        self.within, self.across = map(LeanAttention, self.layers)
        expand, shrink = block.ff.net[0].proj, block.ff.net[2]
        self.expand, self.shrink = (expand.weight, expand.bias), (shrink.weight, shrink.bias)
        self.norms = [
            (norm.normalized_shape, norm.weight, norm.bias, norm.eps)
            for norm in (block.norm1, block.norm2, block.norm3)
        ]

    def is_changed(self) -> bool:
        """Whether an adapter acts on an attention now."""
        return any("forward" in vars(layer) for layer in self.layers)

    def __call__(self, x: Tensor, text: Tensor) -> Tensor:
        """x (N, L, C), text (N, M, D) → (N, L, C)."""
        first, second, third = self.norms
        y = torch.layer_norm(x, *first)
        x = self.within(y, *self.within.keys_and_values(y)).add_(x)
        y = torch.layer_norm(x, *second)
        x = self.across(y, *self.across.kept(text)).add_(x)
        y = functional.linear(torch.layer_norm(x, *third), *self.expand)
        y, gate = y.chunk(2, dim=-1)
        return functional.linear(functional.gelu(gate).mul_(y), *self.shrink).add_(x)


class LeanAttention:
    """An `Attention` over sequences."""

    def __init__(self, layer: Any) -> None:
        self.heads = layer.heads
        parts = (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0])
        self.query, self.key, self.value, self.out = [(part.weight, part.bias) for part in parts]
        # (text, its keys, its values) of the last texts
        self.known: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """softmax(Q Kᵀ / √d) V through the last projection: x (N, L, C) → (N, L, C)."""
        query = self._heads(x, *self.query)
        joined = functional.scaled_dot_product_attention(query, key, value)
        return functional.linear(joined.transpose(1, 2).flatten(2), *self.out)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, M, D) → (N, heads, M, d) each."""
        return self._heads(x, *self.key), self._heads(x, *self.value)

    def kept(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """`keys_and_values` of a text, which is known again by its very tensor."""
        for seen, key, value in self.known:
            if seen is text:
                return key, value
        key, value = self.keys_and_values(text)
        self.known = [(text, key, value), *self.known][:KEPT]
        return key, value

    def _heads(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = functional.linear(x, weight, bias)
        return y.view(len(x), x.shape[1], self.heads, -1).transpose(1, 2)


def _fits(x: Tensor) -> bool:
    """Whether this file computes it: float32 on a CPU, channels last, without gradients."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )
