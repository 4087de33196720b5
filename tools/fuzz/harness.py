"""Runs cases in worker processes and watches them: time, memory, files, and how they end."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

# seconds without a word from a worker; a case that takes over 20 is a fault already
PATIENCE = 45.0
LIMIT_SECONDS = 20.0
ROOT = Path(__file__).parent.parent.parent


@dataclass
class Report:
    """What came of the cases of one target."""

    target: str
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    faulty: int = 0
    slowest: float = 0.0
    memory_mb: int = 0  # above what the worker had before its first case
    faults: dict[str, str] = field(default_factory=dict)  # kind → how to see the first of it again
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, result: dict[str, Any]) -> None:
        self.cases += 1
        self.slowest = max(self.slowest, result["seconds"])
        self.memory_mb = max(self.memory_mb, result["memory_mb"])

        fault = result.get("fault")
        if fault is None:
            self.accepted += result["accepted"]
            self.refused += not result["accepted"]
            return
        self.faulty += 1
        self.kinds[fault] += 1
        self.faults.setdefault(fault, f"case {result['case']}: {result.get('detail', '')}")


def run_target(
    name: str,
    *,
    seed: int,
    first: int,
    count: int,
    jobs: int,
    minutes: float | None,
    out: Path,
) -> Report:
    """Cases `first … first + count` of a seed, spread over `jobs` processes."""
    report = Report(name)
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    shares = [range(first + job, first + count, jobs) for job in range(jobs)]
    lock = threading.Lock()

    def follow(share: range) -> None:
        for result in _cases(name, seed, share, ends, out):
            with lock:
                report.add(result)

    threads = [threading.Thread(target=follow, args=(share,)) for share in shares if len(share)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


def _cases(name: str, seed: int, share: range, ends: float | None, out: Path):
    """Results of a share. A worker that dies or hangs is a fault of its case; a new one goes on
    behind it.
    """
    while len(share) and (ends is None or time.monotonic() < ends):
        done = 0
        for result in _worker(name, seed, share, ends, out):
            yield result
            done += 1
        if done == 0:
            raise RuntimeError(f"the worker of {name} did not start; its messages are above")
        share = share[done:]


def _worker(name: str, seed: int, share: range, ends: float | None, out: Path):
    """Results until the share is done, the time is up, or a case ends the process."""
    folder = Path(tempfile.mkdtemp(prefix="zeroconv-fuzz-"))
    errors = open(folder / "stderr.txt", "w+")  # noqa: SIM115 - closed below
    words = [name, seed, share.start, share.stop, share.step, folder, out]
    process = _start([str(word) for word in words], errors)
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    number, started = share.start, False
    try:
        while number < share.stop and (ends is None or time.monotonic() < ends):
            try:
                line = lines.get(timeout=PATIENCE if started else 180)
            except queue.Empty:
                yield _ended(number, "a hang")
                return
            if line is None:
                if started:
                    yield _ended(number, f"the process ended with {process.wait()}")
                else:
                    errors.seek(0)
                    sys.stderr.write(errors.read()[-4000:])
                return
            started = True
            if line.startswith("{"):
                yield json.loads(line)
                number += share.step
    finally:
        process.kill()
        process.wait()
        errors.close()
        shutil.rmtree(folder, ignore_errors=True)


def _start(words: list[str], errors: TextIO) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.fuzz.worker", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=errors,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def _ended(number: int, fault: str) -> dict[str, Any]:
    return {"case": number, "seconds": 0.0, "memory_mb": 0, "accepted": False, "fault": fault}
