"""What was found out about files, remembered for as long as the file system says that nobody
touched them.

A book holds 48 bytes a file: a hash of its path, a hash of what the file system says of it (size,
times, inode), and a word of at most 32 letters. A file of which the file system says something else
is not in it, so a lost, an old or a damaged book costs time and nothing more.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import threading
import time
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy import ndarray

from zeroconv.files import atomic_write

ENTRY = np.dtype([("path", "<u8"), ("stat", "<u8"), ("digest", "S32")])
_YOUNG = 2_000_000_000  # ns: a file changed so lately may change again within one tick of its clock
_END = b"crc32 "  # and the checksum, behind the table, where numpy does not look


class Book:
    """`says` what was noted of a file, by a map of a sorted table; new notes wait for `save`."""

    def __init__(self, path: Path, what: str) -> None:
        """`what`: its name in a sentence, where it is damaged."""
        self.path, self.what = path, what
        self.new: dict[int, tuple[int, bytes]] = {}
        self.lock = threading.Lock()
        self._open(_read_table(path, what))

    def _open(self, table: ndarray) -> None:
        self.table = table
        self.paths, self.stats, self.digests = (table[name] for name in ENTRY.names or ())
        self.paths = np.ascontiguousarray(self.paths)  # searched for every file

    def says(self, path: Path, now: os.stat_result) -> str | None:
        """What was noted of the file; `now`: what the file system says of it."""
        name, stat_hash = _hash_path(path), _hash_stat(now)

        with self.lock:
            if (noted := self.new.get(name)) is not None:
                return noted[1].decode() if noted[0] == stat_hash else None

        i = int(np.searchsorted(self.paths, np.uint64(name)))
        if i < len(self.paths) and self.paths[i] == name and self.stats[i] == stat_hash:
            return self.digests[i].decode()
        return None

    def note(self, path: Path, then: os.stat_result, word: str) -> None:
        """`then`: what the file system said before it was looked into. A file that changed just now
        is left out.
        """
        if time.time_ns() - max(then.st_mtime_ns, then.st_ctime_ns) > _YOUNG:
            with self.lock:
                self.new[_hash_path(path)] = _hash_stat(then), word.encode()

    def save(self) -> None:
        """Write down what is new. Where the place cannot be written, the next run looks at the
        files again.
        """
        with self.lock:
            if not self.new:
                return
            new = np.array(
                [(name, stat_hash, word) for name, (stat_hash, word) in self.new.items()], ENTRY
            )
            old = self.table[~np.isin(self.paths, new["path"])]
            table = np.sort(np.concatenate([old, new]), order="path")

            with suppress(OSError), atomic_write(self.path, follow=False) as temporary:
                np.save(temporary, table)
                with open(temporary, "ab") as file:
                    file.write(_END + b"%08x" % zlib.crc32(table.view(np.uint8).data))

            self.new.clear()
            self._open(table)


def _read_table(path: Path, what: str) -> ndarray:
    """The table in a file; an empty one where there is none, or a damaged one."""
    empty = np.zeros(0, ENTRY)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is no file")
        return _mapped_table(path)
    except (FileNotFoundError, NotADirectoryError):
        return empty
    except Exception as error:  # numpy raises whatever reading a header as Python raises
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        warnings.warn(f"{what}, {path}, is damaged ({reason}); it is made again.", stacklevel=3)
        return empty


def _mapped_table(path: Path) -> ndarray:
    table = np.lib.format.open_memmap(path, mode="r")

    if table.dtype != ENTRY or table.ndim != 1:
        raise ValueError("it holds something else")

    with open(path, "rb") as file:
        file.seek(table.offset + table.nbytes)
        end = file.read(64)

    if end != _END + b"%08x" % zlib.crc32(table.view(np.uint8).data) and (
        end or not _looks_sound(table)
    ):
        raise ValueError("its checksum is another")
    return table


def _looks_sound(table: ndarray) -> bool:
    """Of a book of before there were checksums: it is in order, and its words are hexadecimal."""
    letters = np.ascontiguousarray(table["digest"]).view(np.uint8)
    ordered = bool(np.all(table["path"][1:] > table["path"][:-1]))
    return ordered and bool(np.isin(letters, np.frombuffer(b"0123456789abcdef", np.uint8)).all())


def _hash_path(path: Path) -> int:
    return _hash(os.path.abspath(path).encode("utf-8", "surrogateescape"))


def _hash_stat(status: os.stat_result) -> int:
    return _hash(
        struct.pack("<4Q", status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    )


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
