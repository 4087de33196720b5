"""Trying an output before any work, so that what cannot be written costs nobody an hour."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zeroconv.files.errors import WriteError, cannot_write, shown
from zeroconv.files.folders import check_folder, settle
from zeroconv.files.signs import is_ours
from zeroconv.files.targets import Target, refuse_address, target_of


def check_output(
    path: str | os.PathLike,
    kind: str,
    suffixes: Iterable[str] = (),
    ours: bool = False,
) -> None:
    """Raise WriteError, a UserError, unless `path` can be written; nothing is left behind.

    kind: "file" (links are followed, FIFOs and devices written through); "folder", replaced as one
    thing, so that it may hold nothing but what zeroconv wrote; "into", a folder in which files are
    written one by one. suffixes: what a file's name may end in, small letters; any where empty.
    Streams need none. ours: a file that is there already must be empty or one that zeroconv wrote
    (`is_ours`).
    """
    if kind not in ("file", "folder", "into"):
        raise ValueError(f"no kind of output: {kind}")
    try:
        if kind == "file":
            _check_file(path, tuple(suffixes), ours)
        else:
            _check_folder(path, replaced=kind == "folder")
    except WriteError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def check_not_input(out: str | os.PathLike, inputs: Iterable[str | os.PathLike | None]) -> None:
    """Raise WriteError where `out` is one of the inputs by any name (links, hard links, letters of
    another case), or a folder that holds one. Inputs that are no files here (hub ids, embedded
    names, None) are passed over.
    """
    if not _is_there(out):
        return
    for given in inputs:
        if given is None or not _is_there(given):
            continue
        # by the names as they came: behind /dev/stdout may be a pipe, which has none
        if os.path.samefile(out, given):
            sentence = f"{shown(out)} is the input itself; name another output."
            raise WriteError(sentence, errno.EEXIST)
        above = Path(os.path.realpath(given)).parents
        if os.path.isdir(out) and any(os.path.samefile(parent, out) for parent in above):
            sentence = f"{shown(out)} holds the input {shown(given)}; name another output."
            raise WriteError(sentence, errno.EEXIST)


def _is_there(path: str | os.PathLike) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a NUL in it
        return False


def _check_file(path: str | os.PathLike, suffixes: tuple[str, ...], ours: bool) -> None:
    if str(path).endswith(os.sep):
        raise WriteError(f"{shown(path)} names a folder; name a file to write.", errno.EISDIR)
    target = target_of(path)
    if target.stream:
        _check_stream(path, target)
        return
    if suffixes and Path(path).suffix.lower() not in suffixes:
        raise WriteError(f"{shown(path)} must end in {' or '.join(suffixes)}.", errno.EINVAL)
    file = target.path
    if file.exists():
        # root may write everywhere; a file that nobody may write is meant to stay
        if not os.access(file, os.W_OK) or not file.stat().st_mode & 0o222:
            sentence = f"{shown(path)} is write-protected; name another output."
            raise WriteError(sentence, errno.EACCES)
        if ours and not is_ours(file):
            what = f"{shown(path)} is there already and zeroconv did not write it"
            raise WriteError(f"{what}; name another output, or move it away.", errno.EEXIST)
    _try(file)


def _check_stream(path: str | os.PathLike, target: Target) -> None:
    if target.descriptor is None:
        if not os.access(target.path, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return
    try:
        flags = _flags(target.descriptor)
    except OSError as error:
        raise WriteError(f"{shown(path)} is not open; name another output.", error.errno) from error
    if flags is not None and flags & (os.O_WRONLY | os.O_RDWR) == 0:
        sentence = f"{shown(path)} is open for reading only; name another output."
        raise WriteError(sentence, errno.EBADF)


def _flags(descriptor: int) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl.fcntl(descriptor, fcntl.F_GETFL)


def _check_folder(path: str | os.PathLike, replaced: bool) -> None:
    text = os.fspath(path)
    if not text or "\0" in str(text):
        raise WriteError("an output has no name; name a folder.", errno.EINVAL)
    refuse_address(path)
    if os.path.islink(path) and not os.path.exists(path):
        os.stat(path)  # a circle of links has its own error
    folder = Path(os.path.realpath(path))
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a file" if stat.S_ISREG(os.lstat(folder).st_mode) else "no folder"
        raise WriteError(f"{shown(path)} is {what}; name a folder to write.", errno.ENOTDIR)
    if not replaced:
        _try(folder / "x")
        return
    settle(folder)
    check_folder(folder)
    _try(folder)


def _try(output: Path) -> None:
    """Make a file and remove it in the lowest folder on the way to `output` that is there. Raises
    OSError.

    Asking for permissions is not enough: root has them all, and a read-only file system does not
    say so there.
    """
    os.path.lexists(output)  # too long a path
    lowest = output.parent
    while not os.path.lexists(lowest):
        lowest = lowest.parent
    if not lowest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(lowest))
    _make_nameless(lowest)
    longest = os.pathconf(lowest, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    for part in output.relative_to(lowest).parts:
        if len(os.fsencode(part)) > longest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(output))


def _make_nameless(folder: Path) -> None:
    """Make a file that never has a name and is gone when it is closed; else one with a name, and
    put the folder's times back. Raises OSError.
    """
    if (flag := getattr(os, "O_TMPFILE", None)) is not None:
        try:
            return os.close(os.open(folder, flag | os.O_WRONLY, 0o600))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
    before = os.stat(folder)
    handle, name = tempfile.mkstemp(prefix=".zeroconv-try-", dir=folder)
    os.close(handle)
    os.unlink(name)
    with suppress(OSError):
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
