"""How much memory the pictures of requests take, all requests together.

A picture of one colour is a thousand times larger in memory than in its file, so bounds on bodies
do not bound it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from zeroconv.errors import UserError
from zeroconv.serving.errors import ApiError

BYTES_A_PIXEL = 4  # of Pillow's RGB and RGBA


class Holding:
    """What one request holds."""

    def __init__(self, room: Room) -> None:
        self._room, self.count, self._kept = room, 0, False

    def add(self, pixels: int) -> None:
        """Raises UserError for what no request may hold, ApiError 429 where others hold it."""
        count = pixels * BYTES_A_PIXEL
        self._room.take(self.count, count)
        self.count += count

    def keep(self) -> None:
        """Hold it beyond the request, until `release`."""
        self._kept = True

    def release(self) -> None:
        self._kept = False
        self._room.give_back(self.count)
        self.count = 0

    def ended(self) -> None:
        """The request has ended."""
        if not self._kept:
            self.release()


class Room:
    """Safe to call from any thread."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._lock = threading.Lock()

    @contextmanager
    def request(self) -> Iterator[Holding]:
        """Inside, pictures that are decoded for this request are counted, in its threads too."""
        holding = Holding(self)
        token = _current.set(holding)
        try:
            yield holding
        finally:
            _current.reset(token)
            holding.ended()

    def take(self, before: int, count: int) -> None:
        if before + count > self.most:
            most = self.most // BYTES_A_PIXEL
            raise UserError(f"the pictures have more than {most:,} pixels together; send smaller.")
        with self._lock:
            if self.held + count > self.most:
                raise ApiError(429, "Pictures of other requests fill the memory; try again later.")
            self.held += count

    def give_back(self, count: int) -> None:
        with self._lock:
            self.held -= count


_current: ContextVar[Holding | None] = ContextVar("holding", default=None)


def count_pixels(pixels: int) -> None:
    """Of a picture that is about to be decoded for the current request."""
    holding = _current.get()
    if holding is not None:
        holding.add(pixels)
