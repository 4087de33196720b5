"""Content-addressed shards: a few hundred rows a file, named by what they were made from, read
through memory maps.

A shard is a safetensors file. It appears under its name only when it is complete, so a killed run
goes on with the next one, and two runs at once do no harm. Its header holds checksums: one of
itself, checked whenever a shard is opened, and one of each array, checked when a file is opened
that was not found sound before.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from zeroconv.data.storage.books import Book
from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.inputs import at_home, parse_json

MOST_HEADER = 100_000_000  # bytes; what safetensors itself reads at most
_DTYPES = {
    "U8": np.uint8,
    "U16": np.uint16,
    "F16": np.float16,
    "F32": np.float32,
    "I64": np.int64,
}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_SOUND = "sound"  # what the book says of a shard whose arrays were checked


def default_root() -> Path:
    """$ZEROCONV_CACHE, else ~/.cache/zeroconv."""
    return at_home(os.environ.get("ZEROCONV_CACHE") or Path.home() / ".cache" / "zeroconv")


def content_key(*parts: Any) -> str:
    """A name of 32 hexadecimal digits for anything JSON can write."""
    return hashlib.sha256(
        json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()[:32]


@dataclass(frozen=True)
class Rows:
    """An array in a file, one row an example. `rows[i]` and `rows[2:5]` read those rows; nothing
    else is read.

    The file is mapped while it is in use: a data set may have more shards than a process may have
    open files.
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes
    # of the file that was opened; another one of the same name is mapped anew
    stamp: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> ndarray:
        return self._array()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ndarray:
        return np.array(self._array(), dtype)

    def bytes(self) -> ndarray:
        """All of them, uint8 (size in bytes,)."""
        size = self.dtype.itemsize * math.prod(self.shape)
        return (
            _mapped(self.path, self.stamp)[self.offset : self.offset + size]
            if size
            else np.zeros(0, np.uint8)
        )

    def _array(self) -> ndarray:
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        return self.bytes().view(self.dtype).reshape(self.shape)


@lru_cache(maxsize=128)
def _mapped(path: Path, stamp: tuple[int, ...]) -> ndarray:
    """The bytes of a file. A sound shard never changes, so a map is good for ever."""
    return np.memmap(path, np.uint8, "r")


@dataclass(frozen=True)
class Shard:
    """Arrays that lie in a file, and a note in JSON."""

    arrays: dict[str, Rows]
    note: Any


@dataclass(frozen=True)
class Store:
    """All shards of one kind, `root/kind/ab/<key>.safetensors`."""

    root: Path
    kind: str

    def path(self, key: str) -> Path:
        return self.root / self.kind / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        return self.path(key).is_file()

    def write(self, key: str, arrays: Mapping[str, ndarray], note: Any = None) -> None:
        """Raises UserError where the disk is full or may not be written."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        note_text = json.dumps(note, ensure_ascii=False)
        sums = {name: _sum(array) for name, array in contiguous.items()}
        shapes = {name: (_NAMES[array.dtype], array.shape) for name, array in contiguous.items()}
        metadata = {
            "note": note_text,
            "sums": json.dumps(sums),
            "check": _check(shapes, sums, note_text),
        }
        try:
            with atomic_write(self.path(key), follow=False) as temporary:
                save_file(contiguous, temporary, metadata=metadata)
            _mapped.cache_clear()  # the path may have been mapped before
        # safetensors says a full disk in a class of its own
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the cache {self.root} cannot be written "
                f"({getattr(error, 'strerror', None) or error}); make room, or name another place "
                "with the recipe's data.cache or the variable ZEROCONV_CACHE."
            ) from error

    def read(self, key: str, sound: Callable[[Shard], bool] | None = None) -> Shard:
        """Map a shard. A damaged one, or one that is not `sound`, is removed, with a note.

        Raises KeyError where there is none, or none any more, and UserError where it cannot be read
        or removed.
        """
        path = self.path(key)
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                shard, sums = _parse(path, stat, file.read(8), file.read)
            self._check_arrays(path, stat, shard, sums)

            if sound is not None and not sound(shard):
                raise ValueError("it holds something else")
            return shard
        except (FileNotFoundError, NotADirectoryError) as error:
            raise KeyError(str(path)) from error
        except OSError as error:
            raise UserError(
                f"the cache's {path} cannot be read ({error.strerror or error}); mend or remove "
                "it, or name another place with the recipe's data.cache or the variable "
                "ZEROCONV_CACHE."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            _mapped.cache_clear()
            self._remove(path, stat, error)
            raise KeyError(str(path)) from error

    def _check_arrays(
        self, path: Path, stat: os.stat_result, shard: Shard, sums: dict | None
    ) -> None:
        """Raises ValueError. What was found sound once is not read again until the file system says
        that it changed.
        """
        if sums is None or (book := _book(self.root)).says(path, stat) == _SOUND:
            return
        for name, rows in shard.arrays.items():
            if _sum(rows.bytes()) != sums[name]:
                raise ValueError(f"the checksum of {name} is another")
        book.note(path, stat, _SOUND)

    def _remove(self, path: Path, stat: os.stat_result, reason: Exception) -> None:
        warnings.warn(
            f"{path.name} in the cache's {self.kind} is damaged ({reason}); it is made again.",
            stacklevel=3,
        )
        try:
            with suppress(FileNotFoundError):
                # another process may have made it again already
                if os.path.samestat(os.stat(path), stat):
                    path.unlink()
        except OSError as error:
            raise UserError(
                f"{path} is damaged and cannot be removed ({error.strerror or error}); remove it, "
                "or name another place with the recipe's data.cache or the variable "
                "ZEROCONV_CACHE."
            ) from error


@lru_cache(maxsize=8)
def _book(root: Path) -> Book:
    return Book(root / "sound.npy", "the cache's book of sound shards")


def remember_sound(root: Path) -> None:
    """Note which shards were found sound, so that the next start does not read them to check
    them.
    """
    _book(root).save()


def _parse(
    path: Path, stat: os.stat_result, begin: bytes, read: Callable[[int], bytes]
) -> tuple[Shard, dict[str, int] | None]:
    """safetensors: eight bytes of length, a JSON header with offsets, then the bytes of all
    tensors.

    Returns the checksums too; None for a shard of before there were any. Raises ValueError and its
    like where anything does not fit.
    """
    length, size = int.from_bytes(begin, "little"), stat.st_size
    stamp = (stat.st_dev, stat.st_ino, size, stat.st_mtime_ns, stat.st_ctime_ns)

    if len(begin) < 8 or length > min(MOST_HEADER, size - 8):
        raise ValueError("its header is cut short")

    header = parse_json(read(length).decode())
    metadata = header.pop("__metadata__", {})
    arrays, shapes = {}, {}

    for name, entry in header.items():
        begun, end = entry["data_offsets"]
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])

        if not all(isinstance(n, int) and n >= 0 for n in (begun, end, *shape)):
            raise ValueError("its header is no header")
        if begun + dtype.itemsize * math.prod(shape) != end or 8 + length + end > size:
            raise ValueError("it is cut short")

        shapes[name] = entry["dtype"], shape
        arrays[name] = Rows(path, dtype, shape, 8 + length + begun, stamp)

    note = metadata.get("note", "null")
    if not set(metadata) <= {"note"}:  # else it was written before there were checksums
        sums = parse_json(metadata["sums"])

        if (
            set(metadata) != {"note", "sums", "check"}
            or _check(shapes, sums, note) != metadata["check"]
        ):
            raise ValueError("the checksum of its header is another")
        return Shard(arrays, parse_json(note)), sums
    return Shard(arrays, parse_json(note)), None


def _check(
    shapes: Mapping[str, tuple[str, tuple[int, ...]]], sums: Mapping[str, int], note: str
) -> str:
    return content_key(sorted((name, *entry) for name, entry in shapes.items()), sums, note)


def _sum(array: ndarray) -> int:
    """CRC-32: it is to notice accidents, at 4 GB a second here; BLAKE2b takes five times as
    long.
    """
    return zlib.crc32(array.reshape(-1).view(np.uint8).data) if array.size else 0
