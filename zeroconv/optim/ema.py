"""Exponential moving average of the weights, corrected for its start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Follows `parameters`. Early on the decay is (1 + k) / (10 + k), so that the average never
    remembers the start.

    decay 0: no average, and no memory for one. `every`: only so many updates change the average, by
    decay to that power. `master`: parameter → its float32 value, where the
    parameter itself is rounded. `fixed`: the parameters' memory is known to others, so that only
    numbers may change places.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        decay: float,
        master: Callable[[Tensor], Tensor] | None = None,
        fixed: bool = False,
        every: int = 1,
    ) -> None:
        self.parameters, self.fixed, self.every = list(parameters), fixed, every
        self.master = master or Tensor.detach
        self.decay, self.updates = decay, 0
        self.average = [self.master(p).clone() for p in self.parameters] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        if not self.average or self.updates % self.every:
            return
        decay = min(self.decay**self.every, (1 + self.updates) / (10 + self.updates))
        pairs = list(zip(self.average, self.parameters, strict=True))
        plain = [(a, p.detach()) for a, p in pairs if a.dtype == p.dtype]
        if plain:
            torch._foreach_lerp_([a for a, _ in plain], [p for _, p in plain], 1 - decay)
        for a, p in pairs:
            if a.dtype != p.dtype:  # one at a time: the joined weights live no longer than that
                a.lerp_(self.master(p), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters hold the average, or without one their float32 values. An average
        takes no memory for it: the two sets of tensors change places.
        """
        other = self.average or [self.master(p) for p in self.parameters]
        self._swap(other)
        try:
            yield
        finally:
            self._swap(other)

    @torch.no_grad()
    def _swap(self, other: list[Tensor]) -> None:
        for i, parameter in enumerate(self.parameters):
            if self.fixed:
                held = parameter.clone()
                parameter.copy_(other[i])
                other[i].copy_(held)
            else:
                parameter.data, other[i] = other[i], parameter.data

    def state_dict(self) -> dict:
        return {"average": self.average, "updates": self.updates}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        for average, value in zip(self.average, state["average"], strict=bool(self.average)):
            average.copy_(value)
        self.updates = state["updates"]
