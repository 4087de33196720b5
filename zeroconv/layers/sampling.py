"""What layers need not compute, or compute faster, while pictures are sampled: nothing trains and
the text stays.

Keys and values of the text: every cross-attention projects the text states, which are the same at
every step. With 77 tokens beside latents of 8×8 that is a fifth of the linear layers' arithmetic.

On a CPU group norms are those of `layers/norms.py`, convolutions those of
`layers/convolutions.py`, and whole blocks, where nothing has changed them, those of
`layers/lean.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from zeroconv.layers.convolutions import convolve, is_same_size
from zeroconv.layers.lean import lean_forward, same_layout
from zeroconv.layers.norms import group_norm, is_slow

KEPT = 3  # inputs a layer remembers: the conditional half's, the other's, and both


@contextmanager
def sampling_layers(*modules: nn.Module) -> Iterator[None]:
    """Inside, the cross-attentions of `modules` compute the keys and values of a tensor of text
    states once, and their group norms in the faster way. Nothing may write into such a tensor, or
    into the weights, meanwhile.

    A layer whose forward pass something else has replaced (accelerate's offloading) is left as it
    is.
    """
    replaced = []
    try:
        for layer, forward in _changed(modules):
            if "forward" not in vars(layer):
                replaced.append(layer)
                layer.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for layer in replaced:
            vars(layer).pop("forward", None)


def _changed(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    """Layers and their new forward passes. Blocks come before what is in them, since a lean block
    asks whether its layers are as they were.
    """
    layers = [layer for module in modules for layer in module.modules()]
    for layer in layers:
        lean = lean_forward(layer)
        if lean is not None:
            yield layer, lean
        elif type(layer) is Transformer2DModel:
            yield layer, partial(same_layout, layer.forward)
    for layer in layers:
        if isinstance(layer, Attention) and layer.is_cross_attention:
            for part in (layer.to_k, layer.to_v):
                if isinstance(part, nn.Module):
                    yield part, _Kept(part.forward)
        elif is_slow(layer):
            yield layer, partial(group_norm, layer)
        elif is_same_size(layer, 1) or is_same_size(layer, 3):
            yield layer, partial(convolve, cast(nn.Conv2d, layer))


class _Kept:
    """A layer's forward pass that knows its last results again by the very tensor they were made
    from; on a CPU, since a graphics card saves next to nothing and has less memory.
    """

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward
        self.known: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, *rest: Any, **more: Any) -> Tensor:
        if x.device.type != "cpu" or rest or more:
            return self.forward(x, *rest, **more)
        for seen, y in self.known:
            if seen is x:
                return y
        y = self.forward(x)
        self.known = [(x, y), *self.known][:KEPT]
        return y
