"""Batches as a pure function of (seed, step): nothing to save, nothing to replay, the same after any crash."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from queue import Queue

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from zeroconv.backbones import TextStates
from zeroconv.data.examples import Examples


@dataclass
class Batch:
    moments: Tensor  # (N, 2C, h, w) float32
    hints: Tensor  # (N, 1, 3 or 4, H, W) uint8
    text: TextStates
    indices: ndarray  # (N,) which examples these are

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.moments.to(device), self.hints.to(device), self.text.to(device), self.indices)


def hints_to_float(hints: Tensor) -> Tensor:
    """uint8 (N, 1, 3 or 4, H, W) → float32 (N, 3, H, W) in [0, 1]; −1 where a fourth channel, alpha, is transparent."""
    if hints.shape[1] == 4:
        return torch.where(hints[:, 3:] < 128, -1.0, hints[:, :3].float() / 255)
    return (hints.float() / 255).expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class BatchPlan:
    """Which examples a step takes, and what is done to them.

    Every pass over the data is a new permutation (of examples and their repeats), and a batch may reach over the end of
    a pass. `prompt_dropping`:
    share of captions replaced by the empty prompt, drawn anew every step (paper, section 3.3: 50%). Of `world`
    processes, number `rank` takes every world-th example: no two take the same.
    """

    examples: Examples
    batch_size: int
    seed: int = 0
    prompt_dropping: float = 0.5
    hint_dropout: float = 0.0
    flip: bool = False
    mirror: Callable[[ndarray], ndarray] = lambda hint: hint[:, ::-1]  # a hint (H, W[, C]) in a mirror
    rank: int = 0
    world: int = 1

    def order(self, step: int) -> ndarray:
        """Indices (batch_size,) of the examples of a step."""
        repeats = self.examples.repeats
        n = len(self.examples) if repeats is None else int(repeats.sum())
        positions = (step * self.batch_size + np.arange(self.batch_size)) * self.world + self.rank
        taken = [_permutation(self.seed, int(p), n)[i] for p, i in zip(*np.divmod(positions, n), strict=True)]
        if repeats is None:
            return np.array(taken)
        return np.searchsorted(np.cumsum(repeats), taken, side="right")  # each example owns as many places

    def batch(self, step: int) -> Batch:
        indices = self.order(step)
        rng = np.random.default_rng([self.seed, 2, step, self.rank])
        dropped, blind, mirrored = rng.random((3, len(indices)))
        choice = rng.random(len(indices))
        captions = [self.examples.captions[i] for i in indices]
        rows = [c[int(x * len(c))] for c, x in zip(captions, choice, strict=True)]
        rows = [0 if x < self.prompt_dropping else row for row, x in zip(rows, dropped, strict=True)]
        moments, hints = self.examples.moments[indices], self.examples.hints[indices]
        if self.flip and self.examples.mirrored is not None:
            turn = (mirrored < 0.5) & self.examples.mirrorable[indices]
            if turn.any():
                moments[turn] = self.examples.mirrored[indices[turn]]
                hints[turn] = np.stack([self.mirror(hint) for hint in hints[turn]])
        hints[blind < self.hint_dropout] = 0
        return Batch(torch.from_numpy(moments), channels_first(hints), self.examples.text.states(rows), indices)

    def from_step(self, step: int, ahead: int = 2) -> Iterator[Batch]:
        """The batches of `step`, `step + 1`, …; a thread reads `ahead` of them while the model works."""
        queue: Queue[Batch | BaseException] = Queue(maxsize=ahead)
        stop = threading.Event()

        def read() -> None:
            try:
                for number in range(step, 1 << 62):
                    if stop.is_set():
                        return
                    queue.put(self.batch(number))
            except BaseException as error:
                queue.put(error)

        threading.Thread(target=read, daemon=True).start()
        try:
            while True:
                got = queue.get()
                if isinstance(got, BaseException):
                    raise got
                yield got
        finally:
            stop.set()
            while not queue.empty():  # let a reader that waits to put its batch see that it shall stop
                queue.get_nowait()


@lru_cache(maxsize=4)
def _permutation(seed: int, number: int, n: int) -> ndarray:
    """The order of pass `number` over n examples."""
    return np.random.default_rng([seed, 1, number]).permutation(n)


def channels_first(hints: ndarray) -> Tensor:
    """uint8 (N, H, W) or (N, H, W, 3 or 4) → (N, 1, 3 or 4, H, W)."""
    hints = hints[:, None] if hints.ndim == 3 else hints.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(hints))
