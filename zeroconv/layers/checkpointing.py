"""Gradient checkpointing (Chen et al. 2016) within a budget: what the backward pass computes again
and does not keep.

The parts are residual blocks, transformers, up- and downsamplers and the hint encoder. What each of
them keeps and costs is measured on one step with fake tensors, which have shapes and no memory;
then those whose recomputation is cheapest a byte are chosen until the rest fits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from zeroconv.errors import UserError
from zeroconv.stopping import stop_if_asked

BLOCKS = (
    "JointTransformerBlock",
    "FluxTransformerBlock",
    "FluxSingleTransformerBlock",
    "ChromaTransformerBlock",
    "ChromaSingleTransformerBlock",
    "QwenImageTransformerBlock",
    "ZImageTransformerBlock",
    "ZImageControlTransformerBlock",
)


@dataclass(frozen=True)
class Part:
    """A module that may be computed again. Storages are numbered as they first appear."""

    module: nn.Module
    entry: frozenset[int]  # storages of what goes in: kept if it is computed again
    held: frozenset[int]  # storages that its backward pass needs
    flops: int  # of its forward pass


@dataclass(frozen=True)
class Ledger:
    """What a step keeps for its backward pass; parts in the order of the forward pass."""

    parts: tuple[Part, ...]
    outside: frozenset[int]  # storages that are needed between the parts
    sizes: tuple[int, ...]  # bytes of each storage

    def kept(self, again: Collection[int], upto: int | None = None) -> int:
        """Bytes kept after the forward pass up to a part, when the parts numbered in `again` are
        computed again.
        """
        parts = self.parts[:upto]
        return self._bytes(
            self.outside.union(*(p.entry if i in again else p.held for i, p in enumerate(parts)))
        )

    def peak(self, again: Collection[int]) -> int:
        """The most that is held at once: behind the forward pass, or while a part is being computed
        again, when what later parts kept is free already.
        """
        peaks = [self.kept(again)]
        for i in again:
            before = self.outside.union(
                *(p.entry if j in again else p.held for j, p in enumerate(self.parts[:i]))
            )
            peaks.append(self._bytes(before | self.parts[i].entry | self.parts[i].held))
        return max(peaks)

    def _bytes(self, storages: Iterable[int]) -> int:
        return sum(self.sizes[i] for i in storages)


class _Recorder:
    """Notes which storages a forward pass saves, and within which part."""

    def __init__(self, parts: Sequence[nn.Module], weights: Iterable[Tensor]) -> None:
        self.parts, self.order = parts, list[int]()
        self.entry: list[set[int]] = [set() for _ in parts]
        self.held: list[set[int]] = [set() for _ in parts]
        self.flops = [0] * len(parts)
        self.outside: set[int] = set()
        self.inside: list[int] = []
        self.numbers: dict[int, int] = {}
        self.sizes: list[int] = []
        # as long as this holds them, no other storage takes their address
        self.alive: list[Any] = []
        self.weights = {tensor.untyped_storage()._cdata: tensor for tensor in weights}
        self.counter = FlopCounterMode(display=False)

    def number(self, tensor: Tensor) -> int | None:
        """None for a weight, which is held anyway."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.weights:
            return None
        if storage._cdata not in self.numbers:
            self.numbers[storage._cdata] = len(self.sizes)
            self.sizes.append(storage.nbytes())
            self.alive.append((tensor, storage))
        return self.numbers[storage._cdata]

    def save(self, tensor: Tensor) -> Tensor:
        number = self.number(tensor)
        if number is not None:
            (self.held[self.inside[-1]] if self.inside else self.outside).add(number)
        return tensor

    def enter(self, i: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        stop_if_asked()
        if torch.is_grad_enabled():
            tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
            self.entry[i].update(number for x in tensors if (number := self.number(x)) is not None)
            self.order.append(i)
        self.inside.append(i)
        self.flops[i] -= self.counter.get_total_flops()

    def leave(self, i: int, module: nn.Module, args: tuple, output: Any) -> None:
        self.inside.pop()
        self.flops[i] += self.counter.get_total_flops()

    def ledger(self) -> Ledger:
        parts = [
            Part(self.parts[i], frozenset(self.entry[i]), frozenset(self.held[i]), self.flops[i])
            for i in self.order
        ]
        return Ledger(tuple(parts), frozenset(self.outside), tuple(self.sizes))


def find_parts(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules within these that may be computed again; none lies within another."""
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.upsampling import Upsample2D

    # blocks of diffusion transformers, by diffusers' names: to import them all takes a second
    kinds = (ResnetBlock2D, Transformer2DModel, Upsample2D, Downsample2D)
    inside = [m for module in modules for m in module.modules()]
    return [
        m
        for m in inside
        if isinstance(m, kinds)
        or any(kind.__name__ in BLOCKS for kind in type(m).__mro__)
        or getattr(m, "checkpointed_as_one", False)
    ]


def measure(
    parts: Sequence[nn.Module], weights: Iterable[Tensor], forward: Callable[[], Any]
) -> Ledger:
    """What `forward` keeps for a backward pass, part by part. It runs on fake tensors: it must make
    its inputs itself; modules may be real or fake already. `weights`: tensors that are held anyway.
    """
    weights = list(weights)
    mode = next((w.fake_mode for w in weights if isinstance(w, FakeTensor)), None)
    mode = mode or FakeTensorMode(allow_non_fake_inputs=True)
    # a view of a weight is one of its fake
    record = _Recorder(parts, [*weights, *map(mode.from_tensor, weights)])
    hooks = []
    for i, part in enumerate(parts):
        hooks.append(part.register_forward_pre_hook(partial(record.enter, i), with_kwargs=True))
        hooks.append(part.register_forward_hook(partial(record.leave, i), always_call=True))
    try:
        with mode, record.counter, saved_tensors_hooks(record.save, lambda tensor: tensor):
            output = forward()
        del output
    finally:
        for hook in hooks:
            hook.remove()
    return record.ledger()


def choose(ledger: Ledger, budget: int, beside: int = 0) -> list[int]:
    """Numbers of the parts to compute again so that the peak stays within `budget` bytes, cheapest
    a byte first. beside: bytes of the budget that something else takes.

    Greedy, then whatever turns out not to be needed is left out again, dearest first. Raises
    UserError where not even everything is enough.
    """
    again: set[int] = set()
    allowed, budget = budget, budget - beside
    while ledger.peak(again) > budget:
        kept, rest = ledger.kept(again), [i for i in range(len(ledger.parts)) if i not in again]
        saved = {i: kept - ledger.kept(again | {i}) for i in rest}
        worth = [i for i in rest if saved[i] > 0]
        if not worth:
            raise UserError(
                f"training.checkpointing allows {allowed / 1e9:.2f} GB, but a micro-batch takes "
                f"{(ledger.peak(again) + beside) / 1e9:.2f} GB even if everything is computed "
                "again; allow more, or lower training.batch_size or data.size."
            )
        again.add(min(worth, key=lambda i: ledger.parts[i].flops / saved[i]))
    for i in sorted(again, key=lambda i: -ledger.parts[i].flops):
        if ledger.peak(again - {i}) <= budget:
            again.remove(i)
    return sorted(again)


def recompute_(module: nn.Module) -> None:
    """Keep only the module's inputs for the backward pass. Its forward computes the same as before,
    its parameters and their names stay; without gradients nothing changes at all.
    """
    module.forward = partial(_again, module.forward)  # type: ignore[method-assign]


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # nothing random lies within, and to ask a card for its generator's state stops a graph
    # from being recorded
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
