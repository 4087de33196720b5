"""Permissions as open() and mkdir() would have given them: mkstemp, mkdtemp and safetensors keep
theirs to the owner.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
_lock = threading.Lock()
_known: list[int] = []


def umask() -> int:
    """The process's umask, without a moment in which it is another one.

    Linux says it. Elsewhere it can only be read by setting it: once, to a mask that hides rather
    than shows.
    """
    with suppress(OSError), open(STATUS, "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    with _lock:
        if not _known:
            mask = os.umask(0o077)
            os.umask(mask)
            _known.append(mask)
        return _known[0]


def as_usual(path: Path, like: Path | None = None) -> None:
    """Give a file or folder the permissions it would have, had it been made in the usual way.

    like: the file that it replaces, whose permissions it takes where that exists.
    """
    mode = (0o777 if path.is_dir() else 0o666) & ~umask()
    if like is not None:
        with suppress(OSError):
            mode = stat.S_IMODE(os.stat(like).st_mode) & 0o777
    with suppress(PermissionError, NotImplementedError):  # some file systems know no permissions
        path.chmod(mode)


def as_usual_below(folder: Path, like: Path | None = None) -> None:
    """`as_usual` for a folder, `like` another one, and for everything in it; links are left
    alone.
    """
    for here, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(here, name)
            if not path.is_symlink():
                as_usual(path)
    as_usual(folder, like)
