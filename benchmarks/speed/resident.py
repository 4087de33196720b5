"""What a process holds of the machine's memory at its highest, while a block of code runs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Self

_EVERY = 0.02  # seconds


def resident(field: str) -> int:
    """Bytes by a field of this process's status: VmRSS, VmHWM, RssAnon."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def baseline() -> tuple[int, int]:
    """What a process holds now: without a file behind it, and in all."""
    return resident("RssAnon"), resident("VmRSS")


class Peak:
    """Within it, the peak above a `baseline`, in bytes.

    anonymous: of memory without a file behind it, read every 20 ms. all: with the pages of mapped
    files, which the system may drop, as the system itself records it. seconds: by the clock. cpu:
    seconds of the processor, which other work on the machine changes less.
    """

    def __init__(self, before: tuple[int, int]) -> None:
        self._before = before

    def __enter__(self) -> Self:
        self._most, self._done = resident("RssAnon"), threading.Event()
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began[0]
        self.cpu = time.process_time() - self._began[1]
        self._done.set()
        self._watcher.join()
        self.anonymous = max(self._most, resident("RssAnon")) - self._before[0]
        self.all = resident("VmHWM") - self._before[1]

    def _watch(self) -> None:
        while not self._done.wait(_EVERY):
            self._most = max(self._most, resident("RssAnon"))
