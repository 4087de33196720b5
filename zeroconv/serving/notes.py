"""Notes of one thread: what the package warns of while it works on a request.

Python's warnings belong to the process. Here each thread that asks for them gets its own.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
_threads = threading.local()
_lock = threading.Lock()
_before: Any = None


@contextmanager
def noted() -> Iterator[list[str]]:
    """The sentences that this thread warns of inside, each once, in their order."""
    _listen()
    outer = getattr(_threads, "sentences", None)
    _threads.sentences = []
    try:
        yield _threads.sentences
    finally:
        _threads.sentences = outer


def _listen() -> None:
    """Again for every job, since others may have set warnings back meanwhile."""
    global _before
    with _lock:
        warnings.filterwarnings("always", category=UserWarning)
        if warnings.showwarning is not _show:
            _before, warnings.showwarning = warnings.showwarning, _show


def _show(message: Any, category: Any, filename: str, *more: Any, **named: Any) -> None:
    sentences = getattr(_threads, "sentences", None)
    if sentences is None:
        _before(message, category, filename, *more, **named)
    # what libraries say to their developers stays out of sight
    elif PACKAGE in Path(filename).resolve().parents and str(message) not in sentences:
        sentences.append(str(message))
