"""Which arithmetic is fastest here: measured, as it depends on the processor and not on its age.

torch's fused attention for processors has a slow backward pass in bfloat16: it took a third of a
step. Plain products are faster for the few tokens of these models, so `narrow` asks for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from zeroconv.scratch.corpus.batch import Batch

CHOICES = ("float32", "bfloat16")


@contextmanager
def narrow(device: str, precision: str) -> Iterator[None]:
    """Inside, a forward pass runs in `precision`, with the attention that is fastest there."""
    kind = device.split(":")[0]
    low = precision == "bfloat16"
    plain = kind == "cpu" and low

    attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()

    with torch.autocast(kind, torch.bfloat16, enabled=low), attention:
        yield


def fastest(
    make: Callable[..., Any], batch: int, side: int = 128, channels: int = 8, tries: int = 2
) -> str:
    """The precision whose forward and backward pass of a quarter batch takes the least processor
    time.
    """
    taken = {}

    for precision in CHOICES:
        task = make(precision=precision)
        example = _example(task, max(2, batch // 4), side // 8, channels)
        taken[precision] = min(
            _seconds(task, example) for _ in range(tries + 1)
        )  # the first warms up

    return min(CHOICES, key=lambda choice: taken[choice])


def _example(task: Any, count: int, latent: int, channels: int) -> Batch:
    tokens = tuple(writer(["a large red ball"] * count) for writer in task.writers)

    return Batch(torch.randn(count, channels, latent, latent), tokens, torch.arange(count))


def _seconds(task: Any, example: Batch) -> float:
    drawn = task.draw(example, 0, 0)
    begun = time.process_time()  # of all threads: others' work on this machine does not count
    task.loss(*drawn).backward()

    return time.process_time() - begun
