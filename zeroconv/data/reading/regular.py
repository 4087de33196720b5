"""Opening files of a data set: ordinary ones only, so that nothing waits on a pipe or reads a
device without end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from zeroconv.data.reading.names import shown
from zeroconv.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BinaryIO:
    """An ordinary file, open for reading in binary; links to one are followed. Raises UserError for
    all else.
    """
    try:
        _check(path, os.stat(path).st_mode)
        # not blocking: the file may have become a pipe since; a Windows file is opened in binary
        flags = (
            os.O_RDONLY
            | getattr(os, "O_NONBLOCK", 0)
            | getattr(os, "O_CLOEXEC", 0)
            | getattr(os, "O_BINARY", 0)
        )
        handle = os.open(path, flags)
    except FileNotFoundError as error:
        raise UserError(f"{shown(path)} is missing.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{shown(path)} cannot be read ({_reason(error)}).") from error

    try:
        _check(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: Path) -> None:
    """Raises UserError for a path that is there and is no ordinary file; one that is not there is
    no matter here.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    _check(path, mode)


def stand_in(start: bytes) -> str:
    """What a file is that came in place of data, by how it begins; "" for others."""
    if start.startswith(b"version "):
        return "a Git LFS pointer, not the file itself; git lfs pull brings it"
    if start.lstrip().startswith((b"<!", b"<html", b"<HTML")):
        return "an HTML page, perhaps of a login; download the file itself"
    return ""


def what(mode: int) -> str:
    """What a file's mode says it is, in words."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "no ordinary file")


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UserError(
            f"{shown(path)} is {what(mode)}, not an ordinary file; take it out of the data set."
        )


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
