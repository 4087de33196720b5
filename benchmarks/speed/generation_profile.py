"""A step and a decode by operator, against what the machine reaches in a convolution and a matrix
product (`benchmarks.speed.generation --profile`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.speed.generation_peers import DTYPES, Ours, Peer

COLUMNS = ["", "ms", "share of the time, %", "GFLOP", "share of the peak, %"]
# words in the names of torch's operators → the part they belong to; the first that fits counts
PARTS = {
    "convolutions": ("conv", "slow_conv", "thnn_conv"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "matrix products": ("addmm", "mm", "linear", "matmul"),
    "norms": ("norm", "rsqrt", "var", "mean", "sum"),
    "activations": ("silu", "gelu", "sigmoid"),
    "copies": ("copy", "cat", "clone", "contiguous", "pad", "index", "upsample", "_to_copy"),
}
SECONDS = 1.0  # that a peak is measured for, at least


def part_of(name: str) -> str:
    """Of an operator's name, such as aten::mkldnn_convolution."""
    return next((part for part, words in PARTS.items() if any(w in name for w in words)), "other")


@torch.inference_mode()
def peaks(dtype: torch.dtype, side: int = 64, channels: int = 320) -> dict[str, float]:
    """FLOP a second of the most the machine does here: a 3 × 3 convolution and a matrix product of
    Stable Diffusion's first level, two pictures.
    """
    x = torch.randn(2, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last)
    a = torch.randn(2 * side * side, channels * 4, dtype=dtype)
    b = torch.randn(channels * 4, channels * 4, dtype=dtype)
    return {
        "convolution": _rate(lambda: conv(x), 2 * x.numel() * 9 * channels),
        "matrix product": _rate(lambda: a @ b, 2 * a.numel() * channels * 4),
    }


def _rate(call: Callable[[], Any], operations: int) -> float:
    call()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return operations / best


def counted(call: Callable[[], Any]) -> dict[str, float]:
    """FLOP of a call by part."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    made: dict[str, float] = {}
    for operator, count in counter.get_flop_counts().get("Global", {}).items():
        part = part_of(str(operator))
        made[part] = made.get(part, 0.0) + count
    return made


def timed(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Seconds of a call by part, of the processor's time that an operator itself takes."""
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(repeats):
            call()
    made: dict[str, float] = {}
    for event in recorded.key_averages():
        part = part_of(event.key)
        made[part] = made.get(part, 0.0) + event.self_cpu_time_total / 1e6 / repeats
    return made


def rows_of(peer: Peer, dtype: torch.dtype, label: str, repeats: int) -> list[list[Any]]:
    """Rows of COLUMNS: all, and its parts."""
    best, rows = max(peaks(dtype).values()), list[list[Any]]()
    for name in ("step", "decode"):
        call = getattr(peer, name)
        seconds, operations = timed(call, repeats), counted(call)
        total = sum(seconds.values())
        ordered = sorted(seconds.items(), key=lambda pair: -pair[1])
        for part, taken in [("all", total), *ordered]:
            count = sum(operations.values()) if part == "all" else operations.get(part, 0.0)
            share = round(100 * count / taken / best, 1) if count and taken else None
            rows.append([
                f"{label}, a {name}: {part}", round(taken * 1000, 2),
                round(100 * taken / total, 1), round(count / 1e9, 1) or None, share,
            ])  # fmt: skip
    return rows


def table(sizes: Sequence[str], dtypes: Sequence[str], repeats: int) -> tuple[list[Any], str]:
    """Rows of COLUMNS of ours with torch, and a note on the peaks."""
    rows, notes = [], []
    with torch.inference_mode():
        for dtype in dtypes:
            reached = {name: f"{rate / 1e9:,.0f}" for name, rate in peaks(DTYPES[dtype]).items()}
            words = ", ".join(f"{name} {rate}" for name, rate in reached.items())
            notes.append(f"GFLOP a second in {dtype}: {words}.")
            for size in sizes:
                peer = Ours(size, DTYPES[dtype], "torch")
                rows += rows_of(peer, DTYPES[dtype], f"{size}, {dtype}", repeats)
    return rows, " ".join(notes)
