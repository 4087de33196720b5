"""One function on many numbers: in the processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from zeroconv.errors import UserError
from zeroconv.machine import leave_ctrl_c

Work = Callable[[int], dict]


def on_cores(work: Work, numbers: Sequence[int], workers: int) -> Iterator[dict]:
    """The results in the order of the numbers. Raises UserError where a process is killed."""
    if workers < 2 or len(numbers) < 2 * workers:
        yield from map(work, numbers)
        return
    # spawn: a fork of a process with threads (torch has some) may hang
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, initializer=_alone) as pool:
            chunk = max(1, min(16, len(numbers) // (4 * workers)))
            yield from pool.map(work, numbers, chunksize=chunk)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside, perhaps for want of memory; what is done is "
            "kept: give the same command again, with fewer --workers."
        ) from error


def _alone() -> None:
    """One thread a process: the processes share the cores already."""
    import cv2

    leave_ctrl_c()
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def with_ray(work: Work, numbers: Sequence[int]) -> Iterator[dict]:
    """The same work on a Ray cluster, by Ray Data; OUT must be a place that every node sees. Raises
    UserError.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install 'zeroconv[cluster]'.") from error
    if not numbers:
        return

    def some(batch: dict[str, np.ndarray]) -> dict[str, list]:
        return {"line": [json.dumps(work(int(i))) for i in batch["item"]]}

    rows = ray.data.from_items([int(i) for i in numbers]).map_batches(some, batch_size=16)
    for row in rows.iter_rows():
        yield json.loads(row["line"])
