"""Changes to the attention of a frozen UNet, attached for a while and removed without a trace.

An adapter (LLLite, IP-Adapter, reference-only) gives one `Change` for each attention that it acts
on. An attention none of whose changes is on runs exactly as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

ATTENTIONS = ("attn1", "attn2")  # of a block: over the picture, and over the text


@dataclass
class Switch:
    """What all changes of one adapter have in common; `on` and `factor` are set before each step.

    factor: on what it adds. scales: (N,), a further one a picture. both: whether the unconditional
    half of guidance is changed too. pictures: N, so many rows are one half; None: all rows.
    mask: (1 or N, 1, H, W) in [0, 1], where it acts, and `size`, (h, w) of the latents.
    """

    on: bool = True
    factor: float = 1.0
    both: bool = True
    pictures: int | None = None
    scales: Tensor | None = None
    mask: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    _masks: dict[int, Tensor] = field(default_factory=dict)

    def halves(self, x: Tensor) -> int:
        """1 or 2: how many halves of guidance the rows of x (N or 2N, …) are."""
        return 1 if self.pictures is None else max(1, len(x) // self.pictures)

    def rows(self, x: Tensor) -> slice:
        """The rows of x (N or 2N, …) that are changed; the conditional half is the second."""
        return slice(0 if self.both else len(x) - len(x) // self.halves(x), None)

    def weights(self, x: Tensor) -> float | Tensor:
        """The factor on what is added to rows x (N or 2N, L, C) that are changed."""
        weights: float | Tensor = self.factor
        if self.scales is not None:
            weights = weights * repeated(self.scales[:, None, None].to(x), len(x))
        if self.mask is not None:
            weights = weights * repeated(self._mask_of(x.shape[1]).to(x), len(x))
        return weights

    def _mask_of(self, count: int) -> Tensor:
        """The mask's means over the cells of an attention of `count` tokens, (1 or N, L, 1)."""
        if count not in self._masks:
            assert self.mask is not None
            small = nn.functional.adaptive_avg_pool2d(self.mask, grid(self.size, count))
            self._masks[count] = small.flatten(2).transpose(1, 2)
        return self._masks[count]


def grid(size: tuple[int, int], count: int) -> tuple[int, int]:
    """Height and width of an attention over `count` positions, of latents of `size` (h, w): each
    level has half of the one before, rounded up.
    """
    height, width = size
    while height * width > count and (height, width) != (1, 1):
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != count:
        raise ValueError(f"no level of latents of {size} has {count} positions")
    return height, width


def repeated(x: Tensor, rows: int) -> Tensor:
    """(1, …) stays; (N, …) comes once for each half of guidance."""
    return x if len(x) in (1, rows) else x.repeat(rows // len(x), *[1] * (x.dim() - 1))


@dataclass
class Call:
    """One run of an attention: its input x (N, L, C), its queries (N, L, D), keys and values (N,
    M, D).
    """

    layer: Any
    x: Tensor
    query: Tensor
    key: Tensor
    value: Tensor

    def attend(self, key: Tensor, value: Tensor, query: Tensor | None = None) -> Tensor:
        """softmax(Q Kᵀ / √d) V over the layer's heads, (N, L, D); keys and values (N, M, D)."""
        query = self.query if query is None else query
        q, k, v = (_heads(part, self.layer.heads) for part in (query, key, value))
        joined = nn.functional.scaled_dot_product_attention(q, k, v)  # (N, heads, L, d)
        return joined.transpose(1, 2).flatten(2)


class Change:
    """What one adapter does to one attention."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch

    def before(self, name: str, x: Tensor) -> Tensor:
        """The input (N, L, C) of the projection `name`: to_q, to_k or to_v."""
        return x

    def after(self, call: Call, out: Tensor) -> Tensor:
        """The heads' joined outputs (N, L, D), before the last projection."""
        return out


def attentions(unet: nn.Module) -> dict[str, Attention]:
    """Every attention of the transformer blocks by its name within the UNet, in the order of its
    modules.
    """
    return {
        f"{name}.{which}": getattr(block, which)
        for name, block in unet.named_modules()
        if isinstance(block, BasicTransformerBlock)
        for which in ATTENTIONS
        if getattr(block, which, None) is not None
    }


@contextmanager
def attached(unet: nn.Module, changes: Sequence[Mapping[str, Change]]) -> Iterator[None]:
    """Inside, the attentions of `unet` are changed by every adapter's changes, given by their
    names, in order. Afterwards each module is as it was.
    """
    layers = attentions(unet)
    before: list[tuple[Attention, Any]] = []
    try:
        for name, layer in layers.items():
            here = [each[name] for each in changes if name in each]
            if here:
                before.append((layer, vars(layer).get("forward")))
                layer.forward = partial(_changed, layer, layer.forward, here)  # type: ignore[method-assign]
        yield
    finally:
        for layer, forward in before:
            if forward is None:
                vars(layer).pop("forward", None)
            else:
                layer.forward = forward  # type: ignore[method-assign]


def _changed(
    layer: Any,
    forward: Callable[..., Tensor],
    changes: Sequence[Change],
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **more: Any,
) -> Tensor:
    """An attention's forward pass with changes: hidden_states (N, L, C) → (N, L, C)."""
    acting = [change for change in changes if change.switch.on]
    if not acting:
        return forward(hidden_states, encoder_hidden_states, attention_mask, **more)
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    projected = []
    for name, x in (("to_q", hidden_states), ("to_k", context), ("to_v", context)):
        for change in acting:
            x = change.before(name, x)
        projected.append(getattr(layer, name)(x))
    call = Call(layer, hidden_states, *projected)
    out = call.attend(call.key, call.value)
    for change in acting:
        out = change.after(call, out)
    return layer.to_out[1](layer.to_out[0](out))


def _heads(x: Tensor, heads: int) -> Tensor:
    """(N, L, D) → (N, heads, L, D / heads)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
