"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) as a wish: the loop ends its step and saves.

A process that was stopped so raises `zeroconv.errors.Interrupted` in the end, which gives it the
exit code that shells expect (130, 143, 129): what was to follow a finished run does not follow.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from zeroconv.errors import Interrupted

GOES_ON = "the same command goes on where this one stopped"
_HANGUP: Any = getattr(signal, "SIGHUP", None)  # Windows has none
_SAME_WISH = 2.0  # seconds; a terminal and a launcher both pass on what was pressed once


def signals() -> list[signal.Signals]:
    """What asks a process to end. SIGHUP is left out where it is ignored, as under nohup."""
    known = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        known.append(_HANGUP)
    return known


class StopSignals:
    """Inside `with`, the first signal sets `asked` and `number`; a second one ends the process as
    the system would.

    Further SIGHUPs are passed over: a terminal that closes sends several. Of several processes, a
    second signal within two seconds counts as the first.
    """

    def __init__(self) -> None:
        self.asked = False
        self.number = int(signal.SIGTERM)  # of a process of several that another one stops
        self.before: dict[int, Any] = {}
        self._since = 0.0

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # they can be caught nowhere else
            self.before = {number: signal.signal(number, self._ask) for number in signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            _restore(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first, now = not self.asked, time.monotonic()
        if first:
            self.asked, self.number, self._since = True, number, now

        if _HANGUP in self.before:
            signal.signal(_HANGUP, signal.SIG_IGN)
        if number == _HANGUP:
            return

        if not _one_of_several():
            _as_the_system_does()  # now, so that the second one also ends what hangs in C code
        elif not first and now - self._since > _SAME_WISH:
            _as_the_system_does()
            signal.raise_signal(number)


def _as_the_system_does() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _one_of_several() -> bool:
    """Whether a launcher started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _restore(number: int, handler: Any) -> None:
    """None stands for a handler that is none of Python's, and cannot be set again."""
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """Inside, every such signal raises Interrupted: what prepares a run has no state to save, and
    its shards stay.

    Not in a process of several: the launcher must see that it fell, or the others wait for it.
    """
    if threading.current_thread() is not threading.main_thread() or _one_of_several():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"interrupted; {GOES_ON}", number)

    before = {number: signal.signal(number, interrupt) for number in signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            _restore(number, handler)
