"""Names of files by their content, remembered: a file that nobody touched is not read again when the next run starts.

The book lies in the cache's root and holds 48 bytes a file: a hash of its path, a hash of what the file system says of
it (size, times, inode), and the name. A file of which the file system says something else is read anew, so a lost or an
old book costs time and nothing more.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from zeroconv.files import atomic_write

_ENTRY = np.dtype([("path", "<u8"), ("stat", "<u8"), ("digest", "S32")])
_YOUNG = 2_000_000_000  # ns: a file changed so lately may change again within one tick of its clock
_END = 1 << 14


def signature(path: Path) -> str:
    """Names a file's content by its size, first and last 16 KiB: a changed PNG or JPEG differs at its end."""
    book = _open.get()
    return _read(path) if book is None else book.signature(path)


@contextmanager
def remembered(root: Path) -> Iterator[None]:
    """Within it, `signature` looks into the book of `root` first; what it had to read is noted there at the end.

    A thread has its own open book: two that plan at once neither close each other's nor write into it.
    """
    book = Book(root / "signatures.npy")
    token = _open.set(book)
    try:
        yield
        book.save()
    finally:
        _open.reset(token)


class Book:
    """`signature` of files that were seen before, by a map of a sorted table; new ones wait for `save`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.new: list[tuple[int, int, bytes]] = []
        self.table = np.zeros(0, _ENTRY)
        with suppress(OSError, ValueError, EOFError):
            table = np.load(path, mmap_mode="r")
            if table.dtype == _ENTRY and table.ndim == 1:
                self.table = table
        self.paths, self.said, self.digests = (self.table[name] for name in _ENTRY.names or ())
        self.paths = np.ascontiguousarray(self.paths)  # searched for every file

    def signature(self, path: Path) -> str:
        try:
            stat = os.stat(path)
        except OSError:
            return "missing"
        place = _hash(os.path.abspath(path).encode("utf-8", "surrogateescape"))
        said = _hash(struct.pack("<4Q", stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
        i = int(np.searchsorted(self.paths, np.uint64(place)))
        if i < len(self.paths) and self.paths[i] == place and self.said[i] == said:
            return f"{stat.st_size}-{self.digests[i].decode()}"
        name = _read(path)
        size, _, digest = name.partition("-")
        if size == str(stat.st_size) and time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _YOUNG:
            self.new.append((place, said, digest.encode()))
        return name

    def save(self) -> None:
        """Note what is new. Where the place cannot be written, the next run reads the files again."""
        if not self.new:
            return
        new = np.array(self.new, _ENTRY)
        old = self.table[~np.isin(self.paths, new["path"])]
        whole = np.concatenate([old, new])
        _, first = np.unique(whole["path"], return_index=True)  # in order of the paths
        with suppress(OSError), atomic_write(self.path) as temporary:
            np.save(temporary, whole[first])


_open: ContextVar[Book | None] = ContextVar("book", default=None)


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(file.read(_END))
            file.seek(max(0, size - _END))
            digest.update(file.read())
    except OSError:
        return "missing"
    return f"{size}-{digest.hexdigest()[:32]}"
