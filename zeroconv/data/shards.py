"""Content-addressed shards: a few hundred rows a file, named by what they were made from, read through memory maps.

A shard is a safetensors file. It appears under its name only when it is complete, so a killed run goes on with the
next one, and two runs at once do no harm.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from zeroconv.errors import UserError
from zeroconv.files import atomic_write

_DTYPES = {"U8": np.uint8, "F16": np.float16, "F32": np.float32, "I64": np.int64}


def default_root() -> Path:
    """$ZEROCONV_CACHE, else ~/.cache/zeroconv."""
    return Path(os.environ.get("ZEROCONV_CACHE") or Path.home() / ".cache" / "zeroconv").expanduser()


def content_key(*parts: Any) -> str:
    """A name of 32 hexadecimal digits for anything JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Rows:
    """An array in a file, one row an example. `rows[i]` and `rows[2:5]` read those rows; nothing else is read.

    The file is mapped while it is in use: a data set may have more shards than a process may have open files.
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> ndarray:
        return self._whole()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ndarray:
        return np.array(self._whole(), dtype)

    def _whole(self) -> ndarray:
        size = self.dtype.itemsize * math.prod(self.shape)
        if not size:
            return np.zeros(self.shape, self.dtype)
        return _mapped(self.path)[self.offset : self.offset + size].view(self.dtype).reshape(self.shape)


@lru_cache(maxsize=128)
def _mapped(path: Path) -> ndarray:
    """The bytes of a file. Shards never change, so a map is good for ever."""
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

        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        try:
            with atomic_write(self.path(key)) as temporary:
                save_file(whole, temporary, metadata={"note": json.dumps(note, ensure_ascii=False)})
            _mapped.cache_clear()  # the path may have been mapped before
        except (OSError, SafetensorError) as error:  # safetensors says a full disk in a class of its own
            raise UserError(
                f"the cache {self.root} cannot be written ({getattr(error, 'strerror', None) or error}); make room, or "
                "name another place with the recipe's data.cache or the variable ZEROCONV_CACHE."
            ) from error

    def read(self, key: str) -> Shard:
        """Map a shard. Nothing is read but its header; a shard that is cut short is removed and raises KeyError."""
        path = self.path(key)
        try:
            return _map(path)
        except (OSError, ValueError, KeyError) as error:
            path.unlink(missing_ok=True)
            _mapped.cache_clear()
            raise KeyError(f"{path}: {error}") from error


def _map(path: Path) -> Shard:
    """safetensors: eight bytes of length, a JSON header with offsets, then the bytes of all tensors."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        size = os.fstat(file.fileno()).st_size
    metadata = header.pop("__metadata__", {})
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if 8 + length + end > size:
            raise ValueError("cut short")
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        arrays[name] = Rows(path, dtype, tuple(entry["shape"]), 8 + length + begin)
    return Shard(arrays, json.loads(metadata.get("note", "null")))
