"""What a run says of its work, a line at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

ShowLine = Callable[[str], None]


def print_line(line: str) -> None:
    """Nobody may be there to hear: a terminal that was closed, a pipe whose reader has gone. The
    run goes on.
    """
    with suppress(OSError, ValueError):
        print(line, flush=True)


def start_line(step: int, steps: int) -> str:
    """Where a run goes on, in one line."""
    if step < steps:
        return f"going on from step {step} of {steps}"
    return f"all {steps} steps are made already; its results are written anew"


class Countdown:
    """Progress of the cache, a line every few seconds, with the time that is left."""

    def __init__(self, show_line: ShowLine, every: float = 5.0) -> None:
        self.show_line, self.every = show_line, every
        self.what, self.began, self.heard, self.first = "", 0.0, 0.0, 0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.began, self.heard, self.first = what, now, now, done
        elif now - self.heard > self.every or done == total:
            self.heard = now
            left = (now - self.began) / max(1, done - self.first) * (total - done)
            self.show_line(f"caching {what}: {done}/{total}  {left / 60:.1f} min left")
