"""Waiting for shards that other processes fill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def wait(keys: Sequence[str], done: Callable[[str], bool], patience: float) -> None:
    """Until all is done, or nobody has done anything for `patience` seconds."""
    left, since = [key for key in keys if not done(key)], time.monotonic()
    while left and time.monotonic() - since < patience:
        time.sleep(0.5)
        now = [key for key in left if not done(key)]
        since = time.monotonic() if len(now) < len(left) else since
        left = now
