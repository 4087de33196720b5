"""A pass through a UNet alone and beside four busy processes, by how waiting threads wait.

python -m benchmarks.speed.busy [--width 64] [--rounds 8] [--busy 4] [--real-time] [--json FILE]

Every way of waiting is a process of its own, since OpenMP reads it once, and they take turns, a
pass each. --real-time asks the system for the processors while it measures "alone" (root, Linux):
then other work on the machine counts little. --width 320 is Stable Diffusion's UNet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.common import write_result
from tools.reports import ROOT

WAYS = {
    # a setting of other OpenMPs, so that the package leaves GNU's as it is
    "OpenMP's own": {"KMP_BLOCKTIME": "200"},
    "10,000 turns, then asleep": {"GOMP_SPINCOUNT": "10000"},  # ours on an idle machine
    "asleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},  # ours on a busy one
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


class Worker:
    """A process that makes a pass whenever it is asked, and answers its seconds."""

    def __init__(self, way: dict[str, str], width: int) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        words = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.speed.busy",
            "--worker",
            str(width),
        ]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words, cwd=ROOT, env={**kept, **way}, stdin=pipe, stdout=pipe, text=True
        )

    def answer(self) -> str:
        line = cast(IO[str], self.process.stdout).readline()
        if not line:
            raise SystemExit("zeroconv: a process of the measurement ended; see above.")
        return line

    def seconds(self, real_time: bool) -> float:
        stdin = cast(IO[str], self.process.stdin)
        with real_time_of(self.process.pid) if real_time else nothing():
            stdin.write("pass\n")
            stdin.flush()
            return float(self.answer())


@contextmanager
def nothing() -> Any:
    yield


@contextmanager
def real_time_of(pid: int) -> Any:
    """Inside, the threads of a process run before all others of the machine."""
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    for thread in threads:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(10))
    try:
        yield
    finally:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def work(width: int) -> None:
    """The worker's part: random weights need no time, and the numbers do not matter."""
    import torch
    from diffusers import UNet2DConditionModel

    widths = (width, 2 * width, 4 * width, 4 * width)
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=widths
        )
    unet = unet.to_empty(device="cpu").eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.fill_(0.001)
        side = 64 if width == 320 else 32
        z, t, text = torch.randn(1, 4, side, side), torch.tensor([500]), torch.randn(1, 77, 768)
        unet(z, t, text)
        print("ready", flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            unet(z, t, text)
            print(time.perf_counter() - began, flush=True)


def turns(workers: dict[str, Worker], rounds: int, real_time: bool) -> dict[str, list[float]]:
    seconds_of: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            seconds_of[name].append(worker.seconds(real_time))
    return seconds_of


def rows_of(alone: dict[str, list[float]], beside: dict[str, list[float]]) -> Sequence[list[Any]]:
    """Medians and extremes, in seconds."""

    def cell(values: list[float]) -> str:
        return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"

    return [[name, cell(alone[name]), cell(beside[name])] for name in alone]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--real-time", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=int)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return

    workers = {name: Worker(way, arguments.width) for name, way in WAYS.items()}
    loops: list[subprocess.Popen] = []
    try:
        for worker in workers.values():
            worker.answer()
        alone = turns(workers, arguments.rounds, arguments.real_time)
        busy = [sys.executable, "-c", "while True: pass"]
        loops += [subprocess.Popen(busy) for _ in range(arguments.busy)]
        beside = turns(workers, arguments.rounds, False)
    finally:
        for process in (*loops, *(worker.process for worker in workers.values())):
            process.kill()
    write_result(
        "busy",
        ["waiting threads", "alone, s a pass", f"beside {arguments.busy} busy processes"],
        rows_of(alone, beside),
        "python -m benchmarks.speed.busy",
        f"UNet of width {arguments.width}, {os.cpu_count()} cores; medians and extremes.",
        arguments.json,
    )


if __name__ == "__main__":
    main()
