"""Run experiments by name; without one, list them.

    python -m experiments fig7 [--count 20 …]     one figure, with its own options
    python -m experiments shipped [--jobs 2]      those that need no training: 5, 6, 7, 11, 12
    python -m experiments all                     everything; hours, because it trains

Each figure is a process of its own, so that one that fails leaves the others alone. All of them go on where they were
stopped. --jobs: figures at a time, which share the processor's cores; what each of them says is printed when it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from experiments.registry import FIGURES, HERE, chosen, module_of
from zeroconv.errors import UserError


def main(words: list[str]) -> int:
    jobs, words = jobs_of(words)
    names = [word for word in words if not word.startswith("-")][: _names(words)]
    options = words[len(names) :]
    if not names:
        print(listing())
        return 0
    numbers, began = chosen(names), time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(lambda number: run(number, options, jobs), numbers))
    if len(numbers) > 1:
        print(f"== {len(numbers)} figures: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    failed = [f"figure {number}" for number, code in zip(numbers, codes, strict=True) if code]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(number: int, options: list[str], jobs: int = 1) -> int:
    """Make one figure in a process of its own; its exit code."""
    module, title = module_of(number), f"== figure {number}"
    if module is None:
        print(f"{title}: {FIGURES[number].title}: there is no experiment in {HERE}", flush=True)
        return 1
    head, environment = f"{title}: {FIGURES[number].title} ({module})", dict(os.environ)
    if jobs > 1:  # two programs that both use every core take longer than one after the other
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    else:
        print(head, flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", module, *options]
    streams: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if jobs > 1 else {}
    done = subprocess.run(command, cwd=HERE.parent, env=environment, **streams)
    said = f"{head}\n{done.stdout}" if jobs > 1 else ""
    print(f"{said}{title}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return done.returncode


def jobs_of(words: list[str]) -> tuple[int, list[str]]:
    """How many figures at a time, and the words without --jobs. Raises UserError where its number is none."""
    if "--jobs" not in words:
        return 1, words
    place = words.index("--jobs")
    given = "".join(words[place + 1 : place + 2])
    if not given.isdigit() or int(given) < 1:
        raise UserError(f"--jobs is {given or 'nothing'!r}; give how many figures are to be made at a time, 1 or more.")
    return int(given), words[:place] + words[place + 2 :]


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
