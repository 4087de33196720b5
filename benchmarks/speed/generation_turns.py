"""Ours and others by turns: a step, a decode and the peak of memory, for sizes and dtypes
(`benchmarks.speed.generation`); and pictures of the playroom.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from benchmarks.speed.generation_peers import DTYPES, PEERS
from tools.reports import ROOT
from zeroconv.machine import all_memory

COLUMNS = ["", "a step, s", "of it [least, most]", "a decode, s", "[least, most]", "peak, GiB"]
SHARE = 0.85  # of the machine's memory that workers may have at a time
NUMBERS = {"sd15": 1.3e9}  # of UNet, ControlNet and VAE; smaller sizes fit
COPIES = {"ours, openvino": 2.2, "OpenVINO of diffusers": 2.2}  # of the weights, at the peak
MODES: dict[str, dict[str, Any]] = {
    "exact, 20 steps": {},
    "--fast x3": {"fast": "x3"},
    "4 steps": {"steps": 4, "schedule": "trailing"},
}
TARGETS = {"exact, 20 steps": "≤ 0.7", "--fast x3": "≤ 0.3", "4 steps": "≤ 0.2"}


class Worker:
    """A process of one peer; see `generation_peers.work`."""

    def __init__(self, name: str, size: str, dtype: str, cache: str) -> None:
        module = "benchmarks.speed.generation_peers"
        words = [sys.executable, "-W", "ignore", "-m", module, name, size, dtype]
        kept = "0" if size == "sd15" else "20"  # gigabytes of graphs on disk
        more = {"ZEROCONV_CACHE": cache, "ZEROCONV_ENGINES_GB": kept}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words, cwd=ROOT, env={**os.environ, **more}, stdin=pipe, stdout=pipe, text=True
        )

    def answer(self, what: str = "") -> str:
        if what:
            stdin = cast(IO[str], self.process.stdin)
            stdin.write(f"{what}\n")
            stdin.flush()
        line = cast(IO[str], self.process.stdout).readline()
        if not line:
            raise SystemExit("zeroconv: a process of the measurement ended; see above.")
        return line

    def peak(self) -> float:
        """GiB; the worker ends."""
        cast(IO[str], self.process.stdin).close()
        return float(self.answer()) / 2**30


@contextmanager
def workers(names: Sequence[str], size: str, dtype: str) -> Iterator[dict[str, Worker]]:
    """Started one after another, so that none is slowed while it lays out weights."""
    made: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as cache:
        try:
            for name in names:
                made[name] = Worker(name, size, dtype, cache)
                made[name].answer()
            yield made
        finally:
            for worker in made.values():
                worker.process.kill()
                worker.process.wait()


def groups(names: Sequence[str], size: str, dtype: str) -> list[list[str]]:
    """As many peers at a time as fit in memory; the first one, ours, is in each group."""
    each = NUMBERS.get(size, 0.0) * DTYPES[dtype].itemsize + 1e9  # a process without weights
    room, made = SHARE * all_memory(), list[list[str]]()
    first, *others = names
    for name in others:
        taken = 0.0 if not made else sum(each * COPIES.get(one, 1.2) for one in made[-1])
        if not made or taken + each * COPIES.get(name, 1.2) > room:
            made.append([first])
        made[-1].append(name)
    return made or [[first]]


def measured(
    names: Sequence[str], size: str, dtype: str, repeats: int
) -> dict[str, tuple[list[float], list[float], float]]:
    """Peer → seconds of steps and of decodes, and GiB."""
    steps: dict[str, list[float]] = {name: [] for name in names}
    decodes: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, float] = {}
    for group in groups(names, size, dtype):
        with workers(group, size, dtype) as started:
            for _ in range(repeats):
                for name, worker in started.items():
                    steps[name].append(float(worker.answer("step")))
                for name, worker in started.items():
                    decodes[name].append(float(worker.answer("decode")))
            for name, worker in started.items():
                peaks[name] = max(peaks.get(name, 0.0), worker.peak())
    return {name: (steps[name], decodes[name], peaks[name]) for name in names}


def table(
    sizes: Sequence[str], dtypes: Sequence[str], names: Sequence[str], repeats: int
) -> list[list[Any]]:
    """Rows of COLUMNS."""
    rows = []
    for size in sizes:
        for dtype in dtypes:
            for name, (steps, decodes, peak) in measured(names, size, dtype, repeats).items():
                row = [f"{size}, {dtype}: {name}", *_cells(steps), *_cells(decodes), round(peak, 2)]
                rows.append(row)
                print(row, flush=True)
    return rows


def _cells(values: Sequence[float]) -> list[Any]:
    digits = 3 if max(values) < 1 else 2
    least, most = (round(value, digits) for value in (min(values), max(values)))
    return [round(statistics.median(values), digits), f"[{least}, {most}]"]


def pictures(engines: Sequence[str], repeats: int) -> list[list[Any]]:
    """Seconds of a picture of the playroom with a control, by engine and mode, by turns."""
    import warnings

    import zeroconv
    from zeroconv import playroom

    base = zeroconv.load_backbone("playroom")
    net = zeroconv.ControlNet.load("playroom-canny", backbone=base)
    scene = playroom.render(9_000_000)
    controls = [zeroconv.Control(net, zeroconv.conditions.annotate("canny", scene.image))]
    seconds: dict[tuple[str, str], list[float]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(repeats + 1):  # the first one compiles
            for mode, options in MODES.items():
                for engine in engines:
                    began = time.perf_counter()
                    zeroconv.generate(
                        base, scene.caption, controls, seed=number, engine=engine, **options
                    )
                    if number:
                        taken = time.perf_counter() - began
                        seconds.setdefault((mode, engine), []).append(taken)
    return [
        [f"{mode}: {engine}", *_cells(values), TARGETS[mode]]
        for (mode, engine), values in seconds.items()
    ]


def peers(words: str) -> list[str]:
    """Names with commas between, of PEERS. Raises SystemExit."""
    numbers = {str(i): name for i, name in enumerate(PEERS)}
    names = [numbers.get(word.strip(), word.strip()) for word in words.split(";")]
    if unknown := [name for name in names if name not in PEERS]:
        raise SystemExit(f"zeroconv: there is no peer {unknown[0]!r}; {'; '.join(PEERS)}.")
    return names
