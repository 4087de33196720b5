"""Batches as a pure function of (seed, step): nothing to save, nothing to replay, the same after
any crash.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from queue import Queue
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from zeroconv.backbones import TextStates
from zeroconv.conditions import known
from zeroconv.data.cache.examples import Examples
from zeroconv.data.cache.hint_latents import channels_first

__all__ = ["Batch", "BatchPlan", "channels_first", "hints_to_float", "mirror_of", "mirrors_of"]


@dataclass
class Batch:
    moments: Tensor  # (N, 2C, h, w) float32
    # (N, 1, 3 or 4, H, W) uint8, or latents (N, C, h, w) float32 that a control reads; None where
    # the examples have none
    hints: Tensor | None
    text: TextStates
    indices: ndarray  # (N,) which examples these are
    masks: Tensor | None = None  # (N, 1, H, W) uint8: where the loss counts; None: everywhere
    kinds: Tensor | None = None  # (N,) int64, of the hints of a Union control
    # for a reward: the hints as pictures (N, 1, 3 or 4, H, W) uint8, and the numbers (N,) int64 of
    # how each is read back, −1 for one that was blanked
    asked: Tensor | None = None
    readings: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        hints = None if self.hints is None else self.hints.to(device)
        masks = None if self.masks is None else self.masks.to(device)
        kinds = None if self.kinds is None else self.kinds.to(device)
        moments, text = self.moments.to(device), self.text.to(device)
        asked = self.asked
        if asked is not None:
            asked = hints if asked is self.hints else asked.to(device)
        return Batch(moments, hints, text, self.indices, masks, kinds, asked, self.readings)


def hints_to_float(hints: Tensor) -> Tensor:
    """uint8 (N, 1, 3 or 4, H, W) → float32 (N, 3, H, W) in [0, 1]; −1 where a fourth channel,
    alpha, is transparent.
    """
    if hints.shape[1] == 4:
        return torch.where(hints[:, 3:] < 128, -1.0, hints[:, :3].float() / 255)
    return (hints.float() / 255).expand(-1, 3, -1, -1)


def of_size(
    text: TextStates, height: int, width: int, originals: ndarray | None = None
) -> TextStates:
    """Text states for pictures of that size in pixels: an input of SDXL, of no other.

    originals: (N, 4) as `Example.original`; a row of −1, or None, is a picture of that size that
    was not cropped.
    """
    if text.time_ids is None:
        return text
    ids = torch.tensor([height, width, 0, 0, height, width]).repeat(len(text.time_ids), 1)
    if originals is not None:
        known = torch.from_numpy(originals[:, 0] >= 0)
        ids[known, :4] = torch.from_numpy(originals)[known]
    return replace(text, time_ids=ids.to(text.time_ids.device, text.time_ids.dtype))


@dataclass(frozen=True)
class BatchPlan:
    """Which examples a step takes, and what is done to them.

    Every pass over the data is a new permutation (of examples and their repeats), and a batch may
    reach over the end of a pass. Of pictures in several buckets, a batch has one bucket's.
    `prompt_dropping`: share of captions replaced by the empty prompt, drawn anew every step (paper,
    section 3.3: 50%). Of `world` processes, number `rank` takes every world-th example: no two take
    the same.
    """

    examples: Examples
    batch_size: int
    seed: int = 0
    prompt_dropping: float = 0.5
    hint_dropout: float = 0.0
    flip: bool = False
    # a hint (H, W[, C]) in a mirror
    mirror: Callable[[ndarray], ndarray] = lambda hint: hint[:, ::-1]
    # the same of hints of other conditions than the recipe's; None: such a hint must not be
    # mirrored
    mirrors: Mapping[str | None, Callable[[ndarray], ndarray] | None] = field(default_factory=dict)
    # of a Union control: an example's condition → the number of its kind
    kinds: Mapping[str | None, int] | None = None
    # for a reward: an example's condition → the number of how its hint is read back
    readings: Mapping[str | None, int] | None = None
    rank: int = 0
    world: int = 1

    def order(self, step: int) -> ndarray:
        """Indices (batch_size,) of the examples of a step."""
        buckets = self.examples.buckets
        if len(buckets) == 1:
            return self._take(0, step, (self.seed, 1))
        number, batch = self._pass_and_batch(step)
        return self._take(number, batch, (self.seed, 1, number))

    def _take(self, bucket: int, batch: int, seed: tuple[int, ...]) -> ndarray:
        """Batch number `batch` of a bucket's examples, pass after pass."""
        places, n = self.examples.places[bucket], self._sizes[bucket]
        positions = (batch * self.batch_size + np.arange(self.batch_size)) * self.world + self.rank
        order = _permutations(seed, n)
        taken = np.array([order(int(p))[i] for p, i in zip(*np.divmod(positions, n), strict=True)])
        if places is not None:
            taken = np.searchsorted(places, taken, side="right")
        return self.examples.buckets[bucket][taken]

    def _pass_and_batch(self, step: int) -> tuple[int, int]:
        """Which bucket a step takes, and which batch of it.

        By the end of pass e every bucket of n examples has given ⌊(e + 1) n / batch⌋ batches: what
        does not fill one begins the next, so that no picture is lost or favoured, and no batch is
        short. Within a pass they are shuffled.
        """
        sizes, world_batch = self._sizes, self.batch_size * self.world

        def before(number: int) -> int:  # batches
            return sum(number * n // world_batch for n in sizes)

        number = (
            bisect.bisect_right(
                range(2 + (step + 1 + len(sizes)) * world_batch // sum(sizes)), step, key=before
            )
            - 1
        )
        return _pass(self.seed, number, sizes, world_batch)[step - before(number)]

    @property
    def _sizes(self) -> tuple[int, ...]:
        pairs = zip(self.examples.buckets, self.examples.places, strict=True)
        return tuple(len(bucket) if places is None else int(places[-1]) for bucket, places in pairs)

    def batch(self, step: int) -> Batch:
        indices = self.order(step)
        rng = np.random.default_rng([self.seed, 2, step, self.rank])
        dropped, blind, mirrored = rng.random((3, len(indices)))
        choice = rng.random(len(indices))
        captions = [self.examples.captions[i] for i in indices]
        rows = [c[int(x * len(c))] for c, x in zip(captions, choice, strict=True)]
        rows = [
            0 if x < self.prompt_dropping else row for row, x in zip(rows, dropped, strict=True)
        ]
        moments = self.examples.moments[indices]
        read, turn = self.examples.hint_latents, np.zeros(len(indices), bool)
        pixels = (read is None or self.readings is not None) and len(self.examples.hints)
        hints = self.examples.hints[indices] if pixels else None
        masks = None if self.examples.masks is None else self.examples.masks[indices]
        if self.flip and self.examples.mirrored is not None:
            ways = [self._mirror_of(int(i)) for i in indices]
            turn = (
                (mirrored < 0.5)
                & self.examples.mirrorable[indices]
                & [way is not None for way in ways]
            )
            if turn.any():
                moments[turn] = self.examples.mirrored[indices[turn]]
                if masks is not None:
                    masks[turn] = masks[turn][:, :, ::-1]
                if hints is not None:
                    turned = zip(
                        hints[turn],
                        (way for way, t in zip(ways, turn, strict=True) if t),
                        strict=True,
                    )
                    hints[turn] = np.stack([way(hint) for hint, way in turned if way is not None])
        if hints is not None:
            hints[blind < self.hint_dropout] = 0
        text = self.examples.text.states(rows)
        masked = None if masks is None else channels_first(masks)
        asked = None if hints is None else channels_first(hints)
        given = asked
        if read is not None:
            given = torch.from_numpy(read.of(indices, turn, blind < self.hint_dropout))
        elif hints is not None:  # else all are of the size that the text states were made for
            originals = self.examples.originals_of(indices)
            text = of_size(text, hints.shape[1], hints.shape[2], originals)
        kinds = None if given is None else self.examples.kinds_of(indices, self.kinds)
        batch = Batch(torch.from_numpy(moments), given, text, indices, masked, kinds)
        if self.readings is None:
            return batch
        readings = self.examples.kinds_of(indices, self.readings)
        if readings is not None:
            readings[torch.from_numpy(blind < self.hint_dropout)] = -1
        return replace(batch, asked=asked, readings=readings)

    def _mirror_of(self, i: int) -> Callable[[ndarray], ndarray] | None:
        known = self.examples.conditions
        return self.mirror if known is None else self.mirrors.get(known[i], self.mirror)

    def from_step(self, step: int, ahead: int = 2) -> Iterator[Batch]:
        """The batches of `step`, `step + 1`, …; a thread reads `ahead` of them while the model
        works.
        """
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
            # let a reader that waits to put its batch see that it shall stop
            while not queue.empty():
                queue.get_nowait()


def mirror_of(condition: str) -> Callable[[Any], Any]:
    """How a hint of the condition looks in a mirror: not only turned round where its colours name
    sides.
    """
    return mirrors_of([condition])[condition] or (lambda hint: hint[:, ::-1])


def mirrors_of(conditions: Iterable[str | None]) -> dict[str | None, Callable[[Any], Any] | None]:
    """The same of each; None where it is not known, or no such hint may be mirrored."""
    entries = {name: known(name) for name in conditions}
    return {name: None if entry is None else entry.mirror for name, entry in entries.items()}


@lru_cache(maxsize=64)
def _permutations(seed: tuple[int, ...], n: int) -> Callable[[int], ndarray]:
    """The order of each pass over n examples; two are kept, as a batch may reach from one into the
    next.
    """

    @lru_cache(maxsize=2)
    def order(number: int) -> ndarray:
        return (
            np.random.default_rng([*seed, number])
            .permutation(n)
            .astype(np.int32 if n < 1 << 31 else np.int64)
        )

    return order


@lru_cache(maxsize=2)
def _pass(
    seed: int, number: int, sizes: tuple[int, ...], world_batch: int
) -> list[tuple[int, int]]:
    """The batches of pass `number`, (bucket, batch of it), shuffled."""
    given = [
        (b, k)
        for b, n in enumerate(sizes)
        for k in range(number * n // world_batch, (number + 1) * n // world_batch)
    ]
    order = np.random.default_rng([seed, 5, number]).permutation(len(given))
    return [given[i] for i in order]
