"""A disk without room, as the kernel says it: what Python and torch write through `atomic_write`
goes to /dev/full.

Not what safetensors writes: it puts a file of its own in the place of what it is given.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def full_disk(under: str = "") -> Iterator[None]:
    """Inside `with`, every write to a file whose path holds `under` fails with ENOSPC."""
    make = tempfile.mkstemp

    def on_a_full_disk(prefix: str, suffix: str, dir: Path) -> tuple[int, str]:
        if under not in str(Path(dir) / prefix):
            return make(prefix=prefix, suffix=suffix, dir=dir)
        path = Path(dir) / f"{prefix}full{suffix}"
        path.symlink_to("/dev/full")
        return os.open(path, os.O_WRONLY), str(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zeroconv.files.temporary.tempfile.mkstemp", on_a_full_disk)
        yield
