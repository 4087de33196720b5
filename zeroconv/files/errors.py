"""An output that cannot be written, as one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from zeroconv.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)

_REASONS = {
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of the path is a file and no folder",
    errno.EEXIST: "a part of the path is a file and no folder",
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "its symbolic links form a circle",
    errno.EINVAL: "the file system refuses the name",
    errno.EILSEQ: "the file system refuses the name",
    errno.ENOENT: "its folder is gone",
    errno.ETXTBSY: "a program runs from that file",
    errno.EBUSY: "it is a mounted disk or in use",
    errno.EXDEV: "it lies on two disks",
    errno.ENXIO: "the device is not there",
}


class WriteError(UserError, OSError):
    """An output that cannot be written. It is an OSError too, for those who go on without the
    file.
    """

    def __init__(self, sentence: str, number: int | None = None) -> None:
        super().__init__(sentence)
        self.errno = number

    def __str__(self) -> str:
        return str(self.args[0])


def cannot_write(path: str | os.PathLike, error: OSError) -> OSError:
    """The sentence for an OSError met while writing `path`; a full disk stays the error that it
    is.
    """
    if error.errno in FULL or isinstance(error, WriteError):
        return error
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    where = shown(path)
    return WriteError(f"{where} cannot be written: {reason}; name another output.", error.errno)


def shown(path: str | os.PathLike) -> str:
    """A path for a sentence: printable, one line, not longer than a line."""
    text = os.fspath(path) if isinstance(path, str | Path) else os.fsdecode(os.fspath(path))
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= 200 else f"{text[:100]}…{text[-90:]}"


def is_disk_full(error: BaseException) -> bool:
    """Whether it says that there is no room: an error of Python, or of safetensors, whose number is
    in its text.
    """
    if isinstance(error, OSError):
        return error.errno in FULL
    numbers = (f"(os error {number})" for number in FULL)
    return type(error).__name__ == "SafetensorError" and any(n in str(error) for n in numbers)
