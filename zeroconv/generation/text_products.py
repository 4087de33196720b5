"""Keys and values of the text, computed once a picture and not once a step.

Every cross-attention projects the text states, which are the same at every step of sampling. With 77 tokens beside
latents of 8×8 that is a fifth of the linear layers' arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

KEPT = 3  # inputs a layer remembers: the conditional half's, the other's, and both


class _Kept:
    """A layer's forward pass that knows its last results again by the very tensor they were made from."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self.forward = forward
        self.known: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, *rest: Any) -> Tensor:
        for seen, y in self.known:
            if seen is x:
                return y
        y = self.forward(x, *rest)
        self.known = [(x, y), *self.known][:KEPT]
        return y


@contextmanager
def text_products_kept(*modules: nn.Module) -> Iterator[None]:
    """Inside, the cross-attentions of `modules` compute the keys and values of a tensor of text states once. Nothing
    may write into such a tensor, or into their weights, meanwhile.

    A layer whose forward pass something else has replaced (accelerate's offloading) is left as it is.
    """
    layers = [
        layer
        for module in modules
        for attention in module.modules()
        if isinstance(attention, Attention) and attention.is_cross_attention
        for layer in (attention.to_k, attention.to_v)
        if isinstance(layer, nn.Module) and "forward" not in vars(layer)
    ]
    for layer in layers:
        layer.forward = _Kept(layer.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
