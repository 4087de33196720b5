"""Python's collector of reference cycles, stopped while a command imports and loads.

Imports make half a million objects that stay. The collector visits them again and again and frees
none.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_stopped: list[bool] = []  # one entry once it was stopped: whether it is now


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, no cycle is freed until `collect_again`, or until the end. It works once a process,
    and not where the collector is off already.
    """
    if _stopped or not gc.isenabled():
        yield
        return
    _stopped.append(True)
    gc.disable()
    try:
        yield
    finally:
        collect_again()


def collect_again() -> None:
    """What exists now is left out of later collections; what is made from now on is collected.

    Nothing is done where `uncollected` has not stopped it.
    """
    if _stopped != [True]:
        return
    _stopped[:] = [False]
    gc.freeze()
    gc.enable()
