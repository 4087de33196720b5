"""SIGTERM and Ctrl-C as a wish, not an axe: the loop finishes its step, saves, and says "interrupted"."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopSignals:
    """Inside `with`, the first SIGTERM or SIGINT sets `asked`; a second one ends the process as the system would."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # signals can be caught nowhere else
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            _restore(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _restore(number: int, handler: Any) -> None:
    """None stands for a handler that is none of Python's, and cannot be set again."""
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt: what prepares a run has no state to save, and its shards stay.

    Not in a process of several: the launcher must see that it fell, or the others wait for it.
    """
    if threading.current_thread() is not threading.main_thread() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        _restore(signal.SIGTERM, before)
