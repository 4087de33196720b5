"""Examples as arrays, made by several processes, a shard ahead of whoever takes them."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from zeroconv.conditions.resizing import with_hole
from zeroconv.data.dataset import Dataset
from zeroconv.data.fitting import BrokenExample
from zeroconv.machine import cores, leave_ctrl_c

# a core: those that wait for a store or a disk leave it to others; more only take memory
_PROCESSES = 4
# examples a task: small enough to share the work evenly, large enough to outweigh its sending
_TASK = 16


@dataclass
class Drawn:
    """One example: picture (H, W, 3), hint (H, W), (H, W, 3) or (H, W, 4), both uint8; or why there
    is none.
    """

    image: ndarray | None
    hint: ndarray | None
    text: tuple[str, ...] = ()
    mirrorable: bool = False
    broken: str | None = None
    original: tuple[int, int, int, int] | None = None  # see `Example`
    mask: ndarray | None = None  # (H, W) uint8


def draw(dataset: Dataset, i: int) -> Drawn:
    try:
        example = dataset[i]
    except BrokenExample as error:
        return Drawn(None, None, broken=str(error))
    hint = None if example.hint is None else _thin(np.asarray(with_hole(example.hint)))
    image = np.asarray(example.image.convert("RGB"))
    mask = None if example.mask is None else np.asarray(example.mask)
    more = {"mirrorable": example.mirrorable, "original": example.original, "mask": mask}
    return Drawn(image, hint, example.text, **more)


def _thin(hint: ndarray) -> ndarray:
    """Grey hints keep one channel of the three."""
    return (
        hint[..., 0]
        if hint.shape[2] == 3
        and np.array_equal(hint[..., 0], hint[..., 1])
        and np.array_equal(hint[..., 0], hint[..., 2])
        else hint
    )


def draw_shards(
    dataset: Dataset, shards: Sequence[Sequence[int]], workers: int | None = None
) -> Iterator[list[Drawn]]:
    """The examples of each shard in turn; the next shard is drawn while the caller works on one."""
    total = sum(map(len, shards))
    most = _PROCESSES * cores()

    if (workers or 0) > most:
        warnings.warn(
            f"{workers:,} processes are asked for and this machine has {cores()} cores for this "
            f"one, so {most} draw.",
            stacklevel=2,
        )
    workers = min(workers or cores(), most, total // (4 * _TASK))
    if workers < 2:
        yield from ([draw(dataset, i) for i in shard] for shard in shards)
        return
    done = 0
    try:
        # spawn: a fork of a process with threads (torch has some) may hang
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(dataset,)) as pool:
            ahead: list[list[Future]] = []
            try:
                for shard in shards:
                    ahead.append(
                        [
                            pool.submit(_draw_some, list(shard[i : i + _TASK]))
                            for i in range(0, len(shard), _TASK)
                        ]
                    )
                    if len(ahead) > 2:
                        yield [drawn for future in ahead.pop(0) for drawn in future.result()]
                        done += 1
                while ahead:
                    yield [drawn for future in ahead.pop(0) for drawn in future.result()]
                    done += 1
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    except BrokenProcessPool:
        # a script without `if __name__ == "__main__"` cannot be spawned from
        warnings.warn(
            "worker processes could not be started, so this process draws the pictures alone",
            stacklevel=2,
        )
        yield from ([draw(dataset, i) for i in shard] for shard in shards[done:])


_dataset: Dataset | None = None


def _begin(dataset: Dataset) -> None:
    global _dataset
    _dataset = dataset
    leave_ctrl_c()
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)  # the processes share the cores already


def _draw_some(indices: list[int]) -> list[Drawn]:
    assert _dataset is not None
    return [draw(_dataset, i) for i in indices]
