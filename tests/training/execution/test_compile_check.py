"""A compiled layer whose gradients are wrong ends the run before its first update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.training.execution.compile_check import FirstCalls


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, more: dict[str, Tensor] | None = None) -> tuple[Tensor]:
        y = self.linear(x)
        return (y if more is None else y * more["scale"],)


def first(layer: nn.Module, program: Callable[..., Any], *args: Any, **kwargs: Any) -> FirstCalls:
    calls = FirstCalls()
    calls.keep("Layer(4)", layer.forward, program, layer, (args, kwargs))
    return calls


def rounded(layer: Any, x: Tensor, **more: Any) -> Any:
    return tuple(y.bfloat16().float() for y in Layer.forward(layer, x, **more))


def cut(layer: Any, x: Tensor, **more: Any) -> Any:
    """The values are right; no gradient reaches the input."""
    return Layer.forward(layer, x.detach(), **more)


@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_layers_with_the_same_gradients_pass(autocast: bool) -> None:
    layer, x = Layer(), torch.randn(3, 4, requires_grad=True)
    more = {"scale": torch.rand(3, 4, requires_grad=True) * 2}  # no leaf
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        calls = first(layer, rounded, x, more=more)
    calls.compare()
    assert x.grad is None and layer.linear.weight.grad is None


def test_a_compiled_layer_that_loses_gradients_is_refused() -> None:
    calls = first(Layer(), cut, torch.randn(3, 4, requires_grad=True))
    with pytest.raises(UserError, match=r"gives Layer wrong gradients .* training\.compile"):
        calls.compare()
    calls.compare()  # once


def test_frozen_layers_are_compared_by_their_inputs_gradients() -> None:
    layer = Layer().requires_grad_(False)
    calls = first(layer, cut, torch.randn(3, 4))
    calls.compare()  # nothing asks for a gradient; a later call of the same kind does
    given = (torch.randn(3, 4, requires_grad=True),), {}
    calls.keep("Layer(4)", layer.forward, cut, layer, given)
    with pytest.raises(UserError):
        calls.compare()


def test_layers_that_read_more_than_their_arguments_are_not_compared() -> None:
    class Set(Layer):
        scale: Tensor | None = None

        def forward(self, x: Tensor, more: dict[str, Tensor] | None = None) -> tuple[Tensor]:
            assert self.scale is not None
            return (self.linear(x) * self.scale,)

    first(Set(), cut, torch.randn(3, 4, requires_grad=True)).compare()
