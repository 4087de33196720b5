"""From the worker's thread to those who listen on the event loop: which jobs changed.

A listener reads the state of a job when it wakes up, so many changes are one, and a slow client
holds no memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Listener:
    """One client's; made and read on an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._lock = threading.Lock()
        self._changed: dict[str, None] = {}  # in the order of their changes

    def notify(self, job: str) -> None:
        """From any thread."""
        with self._lock:
            self._changed[job] = None
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake.set)

    async def changed(self, seconds: float) -> list[str]:
        """The jobs that changed since the last call; none after so many seconds without any."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return []
        with self._lock:
            self._wake.clear()
            changed, self._changed = list(self._changed), {}
        return changed


class Listeners:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[Listener] = set()

    def __len__(self) -> int:
        with self._lock:
            return len(self._all)

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        listener = Listener()
        with self._lock:
            self._all.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._all.discard(listener)

    def notify(self, job: str) -> None:
        with self._lock:
            listeners = list(self._all)
        for listener in listeners:
            listener.notify(job)
