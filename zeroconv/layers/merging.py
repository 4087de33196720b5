"""Tokens of an attention that are alike, merged before it and copied back after it.

Token merging (Bolya et al. 2023, section 3.1) as Bolya and Hoffman 2023 (sections 4.1 and 4.2) have
it for denoising: in each window of 2 × 2 positions one token, drawn at random, is a destination;
the others are sources. Each source has its most similar destination, by cosine. The sources with
the highest similarity are averaged into their destinations, and after the attention they get a copy
of what their destination got.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeroconv.layers.attention import attentions, grid

SIDE = 2  # of a window, so at most 3 of 4 tokens can be merged
MOST = 1 - 1 / SIDE**2
AT_ONCE = 2**24  # similarities


@dataclass(frozen=True)
class Merged:
    """Which of L tokens are averaged, in rows of N pictures. K: tokens that stay by themselves and
    destinations; R: sources that are merged.
    """

    kept: Tensor  # (N, K), positions
    merged: Tensor  # (N, R), positions
    into: Tensor  # (N, R), which of the K

    def merge(self, x: Tensor) -> Tensor:
        """(N, L, C) → (N, K, C): every destination is the mean of itself and its sources."""
        width = x.shape[-1]
        y = x.gather(1, _columns(self.kept, width))
        sources = x.gather(1, _columns(self.merged, width))
        return y.scatter_reduce(1, _columns(self.into, width), sources, "mean")

    def unmerge(self, y: Tensor) -> Tensor:
        """(N, K, C) → (N, L, C): a merged token is its destination's."""
        width, length = y.shape[-1], self.kept.shape[1] + self.merged.shape[1]
        x = y.new_empty(len(y), length, width)
        x.scatter_(1, _columns(self.kept, width), y)
        copies = y.gather(1, _columns(self.into, width))
        return x.scatter_(1, _columns(self.merged, width), copies)


def match(x: Tensor, targets: Tensor, count: int) -> Merged:
    """Tokens x (N, L, C) and the positions of destinations (N, D) → the `count` sources that are
    most like a destination.
    """
    n, length, width = x.shape
    rest = _others(targets, length)  # (N, S)
    unit = x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    a, b = (unit.gather(1, _columns(part, width)) for part in (rest, targets))
    # so many sources at once that their similarities take little memory
    parts = a.split(max(1, AT_ONCE // (n * b.shape[1])), dim=1)
    best = [(part @ b.transpose(1, 2)).max(dim=-1) for part in parts]
    similarity, nearest = (torch.cat(values, dim=1) for values in zip(*best, strict=True))  # (N, S)
    order = similarity.argsort(dim=-1, descending=True, stable=True)
    first, last = order[:, :count], order[:, count:]
    kept = torch.cat([targets, rest.gather(1, last)], dim=1)
    return Merged(kept, rest.gather(1, first), nearest.gather(1, first))


def _others(targets: Tensor, length: int) -> Tensor:
    """The positions (N, L − D) that are none of `targets` (N, D), in order."""
    taken = torch.zeros(len(targets), length, dtype=torch.int8, device=targets.device)
    taken = taken.scatter(1, targets, 1)
    return taken.argsort(dim=1, stable=True)[:, : length - targets.shape[1]]


def _columns(index: Tensor, width: int) -> Tensor:
    """(N, K) → (N, K, C), for gathering rows of tokens."""
    return index[:, :, None].expand(-1, -1, width)


def destinations(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One position of each 2 × 2 window, drawn evenly, (D,); the last row or column of an odd side
    has none.
    """
    rows, columns = height // SIDE, width // SIDE
    drawn = rng.integers(SIDE**2, size=(rows, columns))
    y = SIDE * np.arange(rows)[:, None] + drawn // SIDE
    x = SIDE * np.arange(columns)[None, :] + drawn % SIDE
    return (y * width + x).reshape(-1)


class Merging:
    """Merged tokens in the self-attentions of the highest resolution that has any.

    share: of the tokens, up to 3 of 4. seeds: one a picture; which tokens are destinations is a
    function of a picture's seed, the step and the layer, so a batch changes nothing. size: (h, w)
    of the latents. `step` and `on` are set before each step.
    """

    def __init__(self, share: float, seeds: Sequence[int], size: tuple[int, int]) -> None:
        self.share, self.seeds, self.size = share, list(seeds), size
        self.step, self.on = 0, True

    @contextmanager
    def attached(self, *nets: nn.Module) -> Iterator[None]:
        """Inside, these layers of `nets` merge tokens; afterwards each is as it was."""
        with ExitStack() as stack:
            for number, layer in enumerate(self.layers(*nets)):
                before = vars(layer).get("forward")
                stack.callback(_put_back, layer, before)
                layer.forward = partial(self._attend, number, layer.forward)  # type: ignore[method-assign]
            yield

    @staticmethod
    def layers(*nets: nn.Module) -> list[Any]:
        """The self-attentions in which tokens are merged, each once, in order."""
        parts = [part for net in nets for part in net.modules() if hasattr(part, "down_blocks")]
        return list(dict.fromkeys(layer for part in parts for layer in highest(part)))

    def _attend(
        self, number: int, forward: Callable[..., Tensor], hidden_states: Tensor, *rest: Any,
        **more: Any,
    ) -> Tensor:  # fmt: skip
        """An attention's forward pass, (N, L, C) → (N, L, C), over fewer tokens."""
        x = hidden_states
        other = any(value is not None for value in (*rest[:2], *map(more.get, _OTHER)))
        if not self.on or other or len(x) % len(self.seeds):
            return forward(x, *rest, **more)
        targets = self._targets(number, len(x), x.shape[1]).to(x.device)
        count = min(int(self.share * x.shape[1]), x.shape[1] - targets.shape[1])
        if count < 1 or not targets.shape[1]:  # a side of one token has no windows
            return forward(x, *rest, **more)
        merged = match(x, targets, count)
        return merged.unmerge(forward(merged.merge(x), *rest, **more))

    def _targets(self, number: int, rows: int, length: int) -> Tensor:
        """(N or 2N, D): the halves of guidance have the same."""
        height, width = grid(self.size, length)
        drawn = [
            destinations(height, width, np.random.default_rng([seed, self.step, number]))
            for seed in self.seeds
        ]
        targets = torch.from_numpy(np.stack(drawn))
        return targets.repeat(rows // len(targets), 1)


_OTHER = ("encoder_hidden_states", "attention_mask")  # of a call that is no plain self-attention


def highest(net: nn.Module) -> list[Any]:
    """The self-attentions of a UNet's, or a copy's, highest resolution that has any, in order. The
    n-th block of the encoder has half of the resolution of the one before; the decoder's last block
    has that of the encoder's first.
    """
    down, up = getattr(net, "down_blocks", ()), getattr(net, "up_blocks", ())
    for level, block in enumerate(down):
        blocks = [block, up[-1 - level]] if up else [block]
        layers = [layer for part in blocks for layer in _within(part)]
        if layers:
            return layers
    return []


def _within(block: nn.Module) -> list[Any]:
    return [
        layer
        for name, layer in attentions(block).items()
        if name.endswith("attn1") and not layer.is_cross_attention
    ]


def _put_back(layer: Any, forward: Any) -> None:
    if forward is None:
        vars(layer).pop("forward", None)
    else:
        layer.forward = forward
