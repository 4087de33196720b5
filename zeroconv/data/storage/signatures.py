"""Names of files by their content, remembered: a file that nobody touched is not read again when
the next run starts.

The book of names lies in the cache's root, see `zeroconv.data.storage.books`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from zeroconv.data.storage.books import Book

_END = 1 << 14


def signature(path: Path) -> str:
    """Names a file's content by its size, first and last 16 KiB: a changed PNG or JPEG differs at
    its end.
    """
    try:
        now = os.stat(path)
    except OSError:
        return "missing"

    if not stat.S_ISREG(now.st_mode):  # a pipe would be waited for
        return "missing"
    if (book := _open.get()) is None:
        return _read(path)
    if (digest := book.says(path, now)) is not None:
        return f"{now.st_size}-{digest}"

    name = _read(path)
    size, _, digest = name.partition("-")

    if size == str(now.st_size):  # else it changed meanwhile
        book.note(path, now, digest)
    return name


@contextmanager
def remembered(root: Path) -> Iterator[None]:
    """Within it, `signature` looks into the book of `root` first; what it had to read is noted
    there at the end.

    A thread has its own open book: two that plan at once neither close each other's nor write into
    it.
    """
    book = Book(root / "signatures.npy", "the cache's book of names")
    token = _open.set(book)
    try:
        yield
        book.save()
    finally:
        _open.reset(token)


_open: ContextVar[Book | None] = ContextVar("book", default=None)


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(file.read(_END))
            file.seek(max(0, size - _END))
            digest.update(file.read(_END))
    except OSError:
        return "missing"
    return f"{size}-{digest.hexdigest()[:32]}"
