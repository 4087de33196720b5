"""Where the bytes for a path go: one rule for files, symbolic links, FIFOs and devices.

A link is followed: what it points to is replaced, and the link stays. Into a FIFO, a character
device or an open descriptor (/dev/stdout) the finished bytes are written through. Block devices,
sockets and folders are refused.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zeroconv.files.errors import WriteError, cannot_write, shown

_MOST_LINKS = 40  # as Linux has it
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # a drive has one letter


@dataclass(frozen=True)
class Target:
    """A file to make or replace, or a stream to write through."""

    path: Path
    stream: bool = False
    descriptor: int | None = None  # of this process, where the path only names it

    def send(self, finished: Path) -> None:
        """Write the bytes of a finished file through the stream."""
        if self.descriptor is not None:
            with suppress(ValueError, AttributeError):  # closed, or no stream at all
                (sys.stdout if self.descriptor == 1 else sys.stderr).flush()
            sink = os.fdopen(os.dup(self.descriptor), "wb")
        else:
            sink = open(self.path, "wb")  # noqa: SIM115, closed below
        with open(finished, "rb") as source, sink:
            shutil.copyfileobj(source, sink)


def target_of(path: str | os.PathLike, follow: bool = True) -> Target:
    """Find where a path leads; nothing need be there yet.

    follow=False: links, pipes and devices are refused, for names that nobody typed. Raises
    WriteError for what cannot be a file.
    """
    text = os.fspath(path)
    if not text or "\0" in str(text):
        raise WriteError("an output has no name; name a file.", errno.EINVAL)
    refuse_address(text)
    try:
        target = _target(Path(text), follow)
        if target.stream and not follow:
            sentence = f"{shown(path)} is a pipe or a device, where a file belongs"
            raise WriteError(f"{sentence}; remove it first.", errno.ENXIO)
        return target
    except WriteError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def refuse_address(path: str | os.PathLike) -> None:
    """Raise WriteError for `s3://bucket/x` and the like, which would become the folder `s3:`."""
    first, *more = Path(os.fsdecode(path)).parts or ("",)
    if more and _SCHEME.fullmatch(first) and not os.path.isdir(first):
        sentence = f"{shown(path)} is an address, and outputs are written to this machine's disks"
        raise WriteError(f"{sentence}; name a path.", errno.EINVAL)


def is_stdout(path: str | os.PathLike) -> bool:
    """Whether a path names this process's standard output, where nothing else may be printed."""
    target = target_of(path)
    return target.stream and target.descriptor == 1


def is_stream(path: str | os.PathLike) -> bool:
    """Whether the bytes for a path are written through, into a FIFO, a device, or an open file."""
    return target_of(path).stream


def _target(path: Path, follow: bool) -> Target:
    real = path
    for _ in range(_MOST_LINKS):
        real = Path(os.path.realpath(real.parent)) / real.name
        if (number := _descriptor(real)) is not None:
            return Target(path, stream=True, descriptor=number)
        if not real.is_symlink():
            break
        if not follow:
            raise WriteError(f"{shown(path)} is a symbolic link; remove it first.", errno.ELOOP)
        real = real.parent / os.readlink(real)
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        return Target(real)
    if stat.S_ISREG(mode):
        return Target(real)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return Target(real, stream=True)
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode), "no file")
    raise WriteError(f"{shown(path)} is {kind}; name a file to write.", errno.EISDIR)


def _descriptor(path: Path) -> int | None:
    """The number of this process's open file that /proc/self/fd/N, /dev/fd/N and /dev/stdout
    name.
    """
    match = re.fullmatch(rf"/proc/{os.getpid()}(/task/\d+)?/fd/(\d+)", str(path))
    return None if match is None else int(match[2])
