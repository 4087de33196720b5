"""Temporary files and folders beside their target, under a name that nothing else has.

`.zeroconv-tmp-HOST-PID-NAME-RANDOM.SUFFIX`: HOST stands for the machine and its process numbers, so
that one can tell whether the writer still lives. Only such names are ever swept, and only once
their writer is gone.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

MARK = ".zeroconv-tmp-"
ABANDONED = 24 * 3600.0  # seconds without a change, where the writer cannot be asked for

_NAME = re.compile(
    re.escape(MARK) + r"(?P<host>[0-9a-f]{8})-(?P<pid>[1-9][0-9]*)-.*-[a-z0-9_]{8}(\.[^./]*)?",
    re.DOTALL,
)


def make_file(target: Path) -> Path:
    """A new empty file beside `target`, with its suffix; only its owner may read it."""
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= 20 else ""
    handle, name = tempfile.mkstemp(prefix=_prefix(target), suffix=suffix, dir=target.parent)
    os.close(handle)
    return Path(name)


def make_folder(target: Path) -> Path:
    """A new empty folder beside `target`; only its owner may look into it."""
    return Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))


def is_temporary(path: str | os.PathLike) -> bool:
    """Whether a name is one that only `make_file` and `make_folder` give."""
    return _NAME.fullmatch(os.path.basename(os.fspath(path))) is not None


def is_stale(path: str | os.PathLike) -> bool:
    """Whether a temporary's writer is gone: its process here has ended, or nothing in it changed
    for a day.
    """
    match = _NAME.fullmatch(os.path.basename(os.fspath(path)))
    if match is None:
        return False
    if match["host"] == host() and not _alive(int(match["pid"])):
        return True
    try:
        return time.time() - newest(Path(path)) > ABANDONED
    except OSError:
        return False


def sweep(folder: str | os.PathLike, recursive: bool = False) -> int:
    """Remove the temporary files that killed processes left in `folder`, and nothing else; how many
    there were.

    recursive: below it too, without following links. Temporary folders are
    `zeroconv.files.folders.settle`'s.
    """
    removed = 0
    for here, folders, names in os.walk(str(folder)):
        # a temporary folder is its writer's until it is settled
        folders[:] = [name for name in folders if recursive and not is_temporary(name)]
        for name in filter(is_temporary, names):
            path = Path(here, name)
            if path.is_symlink() or not path.is_file() or not is_stale(path):
                continue
            with suppress(OSError):
                path.unlink()
                removed += 1
    return removed


def newest(path: Path) -> float:
    """The time of the last change of a file, or of anything in a folder, in seconds. Raises
    OSError.
    """
    times = [os.lstat(path).st_mtime]
    for here, folders, names in os.walk(path):
        for name in (*folders, *names):
            with suppress(OSError):  # it went away meanwhile
                times.append(os.lstat(os.path.join(here, name)).st_mtime)
    return max(times)


@lru_cache(maxsize=1)
def host() -> str:
    """Eight digits for the place where process numbers are unique: machine, boot, and namespace of
    a container.
    """
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _prefix(target: Path) -> str:
    # a name may have 255 bytes, and this one is longer than the target's; whole characters of it,
    # in the encoding that this process has for names, which may be ASCII (LC_ALL=C)
    text = os.fsencode(target.name)[:100].decode("utf-8", "ignore")
    name = os.fsdecode(text.encode("utf-8"))
    return f"{MARK}{host()}-{os.getpid()}-{name}-"


def _alive(pid: int) -> bool:
    if os.name != "posix":  # there signal 0 is no question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
