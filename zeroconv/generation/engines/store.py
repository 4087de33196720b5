"""Compiled graphs on disk: one file each, named by content, in a folder of bounded size.

A file begins with one line of JSON, which holds the names of inputs and outputs and the checksum of
what follows. What does not fit its checksum is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroconv.data.remote.stores import gigabytes
from zeroconv.data.storage.shards import default_root
from zeroconv.errors import UserError
from zeroconv.files import atomic_write, sweep

BOUND = "ZEROCONV_ENGINES_GB"  # of the environment: what the folder holds at most
USUAL = 20.0
_PAGE = 4096  # bytes; the graph begins at a multiple, since it is mapped
_MOST_HEAD = 1 << 22  # bytes of the first line
_IN_USE = 60  # seconds for which a file that was just read or written stays


def folder() -> Path:
    """$ZEROCONV_CACHE/engines, else ~/.cache/zeroconv/engines."""
    return default_root() / "engines"


def read(key: str) -> tuple[dict[str, Any], NDArray[np.uint8]] | None:
    """What was written under a key, its bytes mapped; None where nothing was. A note where it is
    damaged.
    """
    path = folder() / f"{key}.graph"
    try:
        with path.open("rb") as file:
            line = file.readline(_MOST_HEAD)
        blob = np.memmap(path, np.uint8, "c", offset=len(line))
        about = json.loads(line)
        sound = about["sha256"] == hashlib.sha256(blob.data).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        _note(f"the compiled graph {path} cannot be read ({error.strerror}); it is made again.")
        return None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        _note(f"the compiled graph {path} is damaged; it is made again.")
        return None
    with suppress(OSError):
        os.utime(path)  # it was used
    return about["about"], blob


def write(key: str, about: dict[str, Any], size: int, export: Callable[[], memoryview]) -> None:
    """Keep a graph of about `size` bytes, which `export` gives. A note where the folder cannot be
    written or has no room: it is compiled again then.
    """
    bound = gigabytes(BOUND, USUAL) * 1e9
    if size > bound:
        _note(
            f"a compiled graph of {size / 1e9:.1f} GB is not kept, since the cache may have "
            f"{bound / 1e9:g} GB; raise {BOUND}."
        )
        return
    blob = export()
    head = {"zeroconv": "graph", "sha256": hashlib.sha256(blob).hexdigest(), "about": about}
    line = json.dumps(head).encode()
    line += b" " * (-(len(line) + 1) % _PAGE) + b"\n"
    try:
        where = folder()
        where.mkdir(parents=True, exist_ok=True)
        _make_room(where, len(blob), bound)
        path = where / f"{key}.graph"
        with atomic_write(path, follow=False) as temporary, temporary.open("wb") as file:
            file.write(line)
            file.write(blob)
    except (OSError, UserError) as error:
        _note(f"the compiled graph cannot be kept in {folder()} ({error}); name another folder "
              "with the variable ZEROCONV_CACHE.")  # fmt: skip


def remove(key: str) -> None:
    """What was written under a key is not read again."""
    with suppress(OSError):
        (folder() / f"{key}.graph").unlink(missing_ok=True)


def _make_room(where: Path, size: int, bound: float) -> None:
    """Remove the graphs that were not used for longest, until `size` bytes more are in bound."""
    sweep(where)
    kept = []
    for path in where.glob("*.graph"):
        with suppress(OSError):
            status = path.stat()
            kept.append((status.st_mtime, status.st_size, path))
    total, now = size + sum(one[1] for one in kept), time.time()
    for last_used, freed, path in sorted(kept):
        if total <= bound or now - last_used < _IN_USE:
            break
        path.unlink(missing_ok=True)
        total -= freed


def _note(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
