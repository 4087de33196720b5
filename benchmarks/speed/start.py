"""Time of `zeroconv generate` on the playroom, from the shell to the file; and of it the imports.

python -m benchmarks.speed.start
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.common import write_result

COMMAND = [sys.executable, "-m", "zeroconv.cli", "generate", "a red ball"]
ROWS = {
    "import torch": ([sys.executable, "-c", "import torch"], "–"),
    "a picture of 1 step": ([*COMMAND, "--schedule", "trailing", "--steps", "1"], "–"),
    "a picture of 20 steps": (COMMAND, "≤ 4"),
    "a picture of 20 steps with a control": ([*COMMAND, "--control", "canny:a.png"], "–"),
}


def measured(command: Sequence[str], folder: str) -> tuple[float, float]:
    """Seconds of the clock and of the processor, user and system, of one run of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder, "a.png"))
        subprocess.run([*COMMAND, "--out", picture], check=True, capture_output=True)
        for _ in range(repeats):  # by turns
            for name, (command, _) in ROWS.items():
                out = ["--out", str(Path(folder, "b.png"))] if command[1] == "-m" else []
                times[name].append(measured([*command, *out], folder))
    rows = [
        [
            name,
            round(median(seconds for seconds, _ in times[name]), 2),
            round(min(seconds for seconds, _ in times[name]), 2),
            round(max(seconds for seconds, _ in times[name]), 2),
            round(median(busy for _, busy in times[name]), 2),
            target,
        ]
        for name, (_, target) in ROWS.items()
    ]
    write_result(
        "start",
        ["", "seconds", "least", "most", "CPU seconds", "target"],
        rows,
        "python -m benchmarks.speed.start",
        f"The playroom, 128 px, {repeats} runs by turns, medians, from the shell to the file.",
    )


if __name__ == "__main__":
    main()
