"""torch.compile for the layers of a training step (`training.compile`).

Compiled are the parts that a UNet repeats (residual blocks, transformers, up- and downsamplers) and
the hint encoder, not the whole: equal ones share a program, so that the first step takes minutes
and not a quarter of an hour, and modules, weights and state dicts stay as they are. A compiled part
runs while the gradients of a step are made and nowhere else: validation and pictures come in other
batch sizes, for each of which everything would be compiled anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import FunctionType
from typing import Any, cast

import torch
from torch import nn
from torch.fx.experimental import _config

from zeroconv.backbones import UNetBackbone
from zeroconv.control import Net
from zeroconv.data.cache.examples import Examples
from zeroconv.errors import UserError
from zeroconv.layers.checkpointing import find_parts
from zeroconv.layers.cpu import has_bf16_matrix_unit
from zeroconv.training.execution.compile_check import FirstCalls
from zeroconv.training.recipes.training import TrainingSettings

SYMBOLS: Any = _config  # torch's settings of unknown sizes, a module that mypy cannot see through
BACKEND: Any = "inductor"  # tests take one that compiles in no time


def check_compile(settings: TrainingSettings, device: torch.device | str) -> None:
    """Raise UserError where the recipe asks for compiled layers and they cannot be had on `device`.
    Call it first: there may be hours of caching between a run's start and its first step.
    """
    if not settings.compile:
        return
    device = torch.device(device)
    if settings.precision == "bf16_weights" and device.type == "cpu" and not has_bf16_matrix_unit():
        raise UserError(
            "training.compile takes the place of the layers that multiply bf16_weights on this "
            "processor; leave one of the two out."
        )
    try:
        torch.compile(with_separate_code(lambda x: x * 2 + 1), backend=BACKEND)(
            torch.ones(8, device=device)
        )
    except Exception as error:
        needed = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"training.compile needs {needed}, without which torch compiles nothing for "
            f"{device.type} ({reason}); install it, or leave training.compile out."
        ) from error


class Compiled:
    """Programs for the layers of some networks, in place of their own forward pass within `with
    compiled.running():`.

    `several_shapes`: sizes are unknowns of the programs, otherwise there is one for every size that
    a layer meets. It is said beforehand, since torch would decide by the order in which shapes
    come, and a run that goes on meets them in another order than one that never stopped.
    """

    def __init__(self, networks: Iterable[nn.Module], several_shapes: bool) -> None:
        self.on, self.several_shapes = False, several_shapes
        self.first = FirstCalls()
        self.programs: dict[str, Callable[..., Any]] = {}  # by kind of layer
        self.layers = find_layers(networks)
        for layer in self.layers:
            kind = kind_of(layer)
            if kind not in self.programs:
                self.programs[kind] = make_program(layer, several_shapes)
            layer.forward = partial(self._forward, layer.forward, kind, layer)

    def _forward(
        self, plain: Callable[..., Any], kind: str, layer: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not self.on:
            return plain(*args, **kwargs)

        self.first.keep(kind, plain, self.programs[kind], layer, (args, kwargs))
        return self.programs[kind](layer, *args, **kwargs)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around both passes: what is computed again in the backward pass must be what was
        computed.

        Raises UserError after the first step with a kind of layer whose gradients are wrong.
        """
        self.on = True
        # sizes that happen to be equal, as of a square, would be one unknown, and the
        # next shape compiled anew
        alone = SYMBOLS.patch(use_duck_shape=False) if self.several_shapes else nullcontext()
        try:
            with alone:
                yield
        finally:
            self.on = False
        self.first.compare()


def compile_layers_(
    backbone: UNetBackbone,
    control: Net | None,
    data: Examples,
    settings: TrainingSettings,
    show_line: Callable[[str], None],
) -> Callable[[], AbstractContextManager[Any]]:
    """Do as `training.compile` says. Returns what makes a context for both passes of a step."""
    if not settings.compile:
        return nullcontext
    several = len(data.moments.shapes()) > 1 or data.text.several_lengths
    compiled = Compiled(networks_of(backbone, control), several)
    kinds = len(compiled.programs)
    show_line(
        f"{len(compiled.layers)} layers of {kinds} kinds are compiled by torch, so the first step "
        "takes minutes"
    )
    return compiled.running


def find_layers(networks: Iterable[nn.Module]) -> list[nn.Module]:
    """What is compiled by itself; none lies within another. A transformer of many blocks is its
    blocks.
    """
    layers: dict[int, nn.Module] = {}
    for part in find_parts(networks):
        blocks = getattr(part, "transformer_blocks", ())
        layers |= {id(layer): layer for layer in (blocks if len(blocks) > 1 else [part])}
    return list(layers.values())


def kind_of(layer: nn.Module) -> str:
    """The same for layers that may share a program."""
    weights = [(str(p.dtype), p.requires_grad) for p in layer.parameters()]
    return f"{layer!r} {layer.training} {weights}"


def make_program(layer: nn.Module, several_shapes: bool) -> Callable[..., Any]:
    """`program(layer, …)`: the forward pass of layers like this one, compiled when it is first
    called.
    """
    function = with_separate_code(type(layer).forward)
    return torch.compile(function, dynamic=several_shapes, backend=BACKEND)


def with_separate_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, for one more set of programs. torch keeps what it compiles with a
    function's code object, at most 8 programs, and tries them one by one at each call; a UNet has
    more kinds of residual blocks than that.
    """
    plain = cast(FunctionType, function)
    copy = FunctionType(
        plain.__code__.replace(),
        plain.__globals__,
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )
    copy.__kwdefaults__ = plain.__kwdefaults__
    return copy


def networks_of(backbone: UNetBackbone, control: Net | None) -> list[nn.Module]:
    """All that may run in a training step."""
    return [backbone.denoiser, *([] if control is None else control.networks())]
