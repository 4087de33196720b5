"""Long work that can be stopped from outside, between two of its parts.

Whoever starts the work says by `stoppable` when it is not wanted any more. The work itself calls
`stop_if_asked` between pictures, tiles, steps, layers and tensors. Elsewhere that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def stoppable(check: Callable[[], None]) -> Iterator[None]:
    """Inside, in this thread, `stop_if_asked` calls `check`, which raises where the work is to
    stop.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def stop_if_asked() -> None:
    """Raises what the `check` of the innermost `stoppable` raises."""
    check = _check.get()
    if check is not None:
        check()
