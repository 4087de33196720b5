"""Run experiments by name; without one, list them.

    python -m experiments fig7 [--count 20 …]     one figure, with its own options
    python -m experiments shipped [--jobs 2]      those that need no training: 5, 6, 7, 11, 12
    python -m experiments all                     everything; hours, because it trains

Each figure is a process of its own, so that one that fails leaves the others alone. All of them go
on where they were stopped. --jobs: figures at a time, which share the processor's cores; what each
of them says is printed when it ends.
"""

from __future__ import annotations

import heapq
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

from experiments.registry import FIGURES, HERE, chosen, module_of
from tools.reports import read_json, write_json
from zeroconv.errors import UserError
from zeroconv.machine import cores


def main(words: list[str]) -> int:
    jobs, words = jobs_of(words)
    names = [word for word in words if not word.startswith("-")][: _names(words)]
    options = words[len(names) :]
    if not names:
        print(listing())
        return 0
    numbers, began = chosen(names), time.monotonic()
    if jobs > 1:
        numbers = soonest(numbers, jobs)
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda number: run(number, options, jobs), numbers))
    minutes = (time.monotonic() - began) / 60
    if len(numbers) > 1:
        print(f"== {len(numbers)} figures: {minutes:.1f} minutes", flush=True)
    failed = [f"figure {number}" for number, (code, _) in zip(numbers, done, strict=True) if code]
    if names == ["shipped"] and options == ["--fresh"] and not failed:
        taken = {number: one for number, (_, one) in zip(numbers, done, strict=True)}
        write_minutes(HERE / "results" / "shipped.json", taken, minutes, jobs)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def soonest(numbers: list[int], jobs: int) -> list[int]:
    """The order in which all are done first, if each starts when a place is free and takes what it
    took last time.
    """
    taken = {number: minutes_of(number) for number in numbers}

    def end(order: Iterable[int]) -> float:
        free = [0.0] * jobs
        for number in order:
            heapq.heapreplace(free, free[0] + taken[number])
        return max(free)

    # of orders as good as each other, the first
    longest_first = sorted(numbers, key=lambda number: -taken[number])
    return list(min(permutations(longest_first), key=end)) if len(numbers) < 8 else longest_first


def run(number: int, options: list[str], jobs: int = 1) -> tuple[int, float]:
    """Make one figure in a process of its own; its exit code, and the minutes it took."""
    module, title = module_of(number), f"== figure {number}"
    if module is None:
        print(f"{title}: {FIGURES[number].title}: there is no experiment in {HERE}", flush=True)
        return 1, 0.0
    head, environment = f"{title}: {FIGURES[number].title} ({module})", dict(os.environ)
    if jobs > 1:  # two programs that both use every core take longer than one after the other
        environment["OMP_NUM_THREADS"] = str(max(1, cores() // jobs))
    else:
        print(head, flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", module, *options]
    streams: dict = (
        {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if jobs > 1 else {}
    )
    done = subprocess.run(command, cwd=HERE.parent, env=environment, **streams)
    output = f"{head}\n{done.stdout}" if jobs > 1 else ""
    minutes = (time.monotonic() - began) / 60
    print(f"{output}{title}: {minutes:.1f} minutes", flush=True)
    return done.returncode, minutes


def write_minutes(path: Path, taken: dict[int, float], minutes: float, jobs: int) -> None:
    """What all figures of shipped weights took, one by one and together, for `experiments.page`."""
    rows = [
        [f"{number}: {FIGURES[number].title}", round(taken[number], 1)] for number in sorted(taken)
    ]
    result = {
        "columns": ["figure", "minutes"],
        "rows": [*rows, ["all, from start to end", round(minutes, 1)]],
        "command": f"zeroconv reproduce shipped --fresh --jobs {jobs}",
        "note": (
            f"Every picture made anew, {jobs} figures at a time on {cores()} cores of "
            f"{processor()}."
        ),
    }
    write_json(path, result)


def processor() -> str:
    """What Linux calls the processor, and its widest vectors."""
    text = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    )
    name = re.search(r"model name\s*: *(.+)", text)
    wide = next((word for word in ("avx512f", "avx2") if f" {word} " in text), "no AVX2")
    return f"{name[1].strip() if name else platform.processor() or 'an unknown processor'} ({wide})"


def minutes_of(number: int) -> float:
    """CPU minutes that a figure took when it was last made; 0 where that is not known."""
    path = HERE / "results" / f"fig{number:02d}.json"
    return read_json(path).get("call_cpu_minutes", 0.0) if path.is_file() else 0.0


def jobs_of(words: list[str]) -> tuple[int, list[str]]:
    """How many figures at a time, and the words without --jobs. Raises UserError where its number
    is none.
    """
    if "--jobs" not in words:
        return 1, words
    index = words.index("--jobs")
    given = "".join(words[index + 1 : index + 2])
    if not given.isdigit() or int(given) < 1:
        raise UserError(
            f"--jobs is {given or 'nothing'!r}; give how many figures are to be made at a time, 1 "
            "or more."
        )
    return int(given), words[:index] + words[index + 2 :]


def _names(words: list[str]) -> int:
    """Names stand first; what follows the first option belongs to the figures."""
    return next((i for i, word in enumerate(words) if word.startswith("-")), len(words))


def listing() -> str:
    lines = []
    for number, figure in FIGURES.items():
        module = module_of(number) or "not in this checkout"
        needs = "shipped weights" if figure.shipped else "trains first"
        lines.append(f"fig{number:<3} {figure.title} · {needs} · {module}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"zeroconv: {error}", file=sys.stderr)
        sys.exit(2)
