"""Writing a folder as one thing: the old one stays until the new one is complete, and only what is
ours goes.

The rule for every command and function that writes a folder: it may be absent, empty, or hold
nothing but what zeroconv wrote there (`zeroconv.files.manifest` tells). Anything else is refused
and left as it is.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from zeroconv.files import temporary as temporaries
from zeroconv.files.errors import WriteError, cannot_write, shown
from zeroconv.files.manifest import keep_desktop, read_manifest, stranger_in, write_manifest
from zeroconv.files.modes import as_usual_below
from zeroconv.files.targets import refuse_address
from zeroconv.files.writing import flush

_AT_CWD, _EXCHANGE, _NO_REPLACE = -100, 2, 1  # linux/fcntl.h, linux/fs.h


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`, whose old
    files are removed.

    Linux exchanges the two in one step. Elsewhere there are two renames: a crash between them
    leaves old and new under temporary names, and `settle` gives the new one its name. Raises
    WriteError, a UserError, where `path` is a file, or holds what zeroconv did not write; if that
    came while the new one was made, the new one is kept beside it.
    """
    refuse_address(path)
    path = Path(os.path.realpath(path))  # a link to a folder stays, what it points to is replaced
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        settle(path)
        check_folder(path)
        temporary = temporaries.make_folder(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield temporary
        as_usual_below(temporary, like=path)
        write_manifest(temporary, path.name)
        _flush_below(temporary)
        try:
            _put(temporary, path)
        except OSError as error:
            raise cannot_write(path, error) from error
    finally:
        # now the old one, if there was one; or the new one, half written
        discard(temporary)


def check_folder(path: Path) -> None:
    """Raise WriteError unless `path` is absent, empty, or holds nothing but what zeroconv wrote."""
    path = Path(os.path.realpath(path))
    try:
        if not path.is_dir():
            if os.path.lexists(path):
                raise WriteError(f"{shown(path)} is no folder; name another output.", errno.ENOTDIR)
            return
        mounted = _is_mounted(path)
        if mounted or path.samefile(".") or path in Path.cwd().parents:
            what = "a mounted disk" if mounted else "where you are"
            sentence = f"the folder {shown(path)} is {what}; name a new folder in it."
            raise WriteError(sentence, errno.EBUSY)
        stranger = stranger_in(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    if stranger is not None:
        label = shown(stranger.relative_to(path))
        raise WriteError(
            f"the folder {shown(path)} holds {label}, which zeroconv did not write or which was "
            "changed since; name another output, or move it away.",
            errno.ENOTEMPTY,
        )


def _is_mounted(path: Path) -> bool:
    """Whether a folder is mounted there; one of the same disk, too, as containers have them."""
    if os.path.ismount(path):
        return True
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    places = [line.split(" ")[4] for line in text.splitlines() if line.count(" ") > 4]
    signs = {ord(sign): f"\\{ord(sign):03o}" for sign in "\\ \t\n"}
    return str(path).translate(signs) in places


def settle(path: Path) -> None:
    """End what killed writers of `path` left beside it: if the name is free, the newest complete
    folder gets it.

    All that is removed are temporary folders whose writer is gone; those of other names stay for
    their next writer.
    """
    left = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if temporaries.is_temporary(entry.name) and entry.is_dir(follow_symlinks=False):
                left.append(Path(entry.path))
    stale = {folder: read_manifest(folder) for folder in left if temporaries.is_stale(folder)}
    lists = [(folder, manifest) for folder, manifest in stale.items() if manifest is not None]
    same = [(made["made"], folder) for folder, made in lists if made["name"] == path.name]

    # where a crash fell between two renames, the old one is there too
    for _, folder in sorted(same, reverse=True):
        if os.path.lexists(path):
            keep_desktop(folder, path)
            discard(folder)
        else:
            with suppress(OSError):
                _rename_new(folder, path)
    for folder in (folder for folder, manifest in stale.items() if manifest is None):
        discard(folder)


def discard(folder: Path) -> None:
    """Remove a temporary folder; one that was complete stays if it has come to hold what is not
    ours.
    """
    with suppress(OSError):
        if read_manifest(folder) is not None and (stranger := stranger_in(folder)) is not None:
            warnings.warn(f"{shown(stranger)} is not zeroconv's and was left there.", stacklevel=3)
            return
    shutil.rmtree(folder, ignore_errors=True)


def _put(temporary: Path, path: Path) -> None:
    """Give the new folder its name. The old one, if any, has the temporary name afterwards."""
    if not os.path.lexists(path):
        with suppress(FileExistsError):  # it came into being in this moment
            return _rename_new(temporary, path)
    try:
        check_folder(path)
        if _exchange(temporary, path):
            keep_desktop(temporary, path)
        else:
            _rename_both(temporary, path)
    except OSError as error:
        kept = _free_name(path)
        _rename_new(temporary, kept)
        reason = str(cannot_write(path, error))
        raise WriteError(f"{reason} What was made is in {shown(kept)}.", error.errno) from error
    flush(path.parent)


def _rename_both(temporary: Path, path: Path) -> None:
    """Two renames in place of an exchange; a signal between them puts the old one back."""
    backup = temporaries.make_folder(path)
    backup.rmdir()  # Windows renames to free names only
    os.rename(path, backup)
    try:
        os.rename(temporary, path)
    except BaseException:
        if not os.path.lexists(path):
            os.rename(backup, path)
        raise
    keep_desktop(backup, path)
    discard(backup)


def _free_name(path: Path) -> Path:
    numbers = (path.with_name(f"{path.name}-{i}") for i in range(1, 10**6))
    return next(name for name in numbers if not os.path.lexists(name))


def _rename_new(source: Path, target: Path) -> None:
    """Rename to a name that is free, or that an empty folder has. Raises FileExistsError."""
    if _renameat2(source, target, _NO_REPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders have each other's name, in one step. False where the system has no such
    call.
    """
    return _renameat2(first, second, _EXCHANGE)


def _renameat2(first: Path, second: Path, flag: int) -> bool:
    """Linux's renameat2; False where system or file system do not know it. Raises OSError for other
    failures.
    """
    call = _function()
    if call is None:
        return False
    if call(_AT_CWD, os.fsencode(first), _AT_CWD, os.fsencode(second), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


@lru_cache(maxsize=1)
def _function() -> Any:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    call.restype = ctypes.c_int
    return call


def _flush_below(folder: Path) -> None:
    """Files first, then the folders that name them; links and what else there may be are not
    opened.
    """
    for here, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(here, name)
            if path.is_file() and not path.is_symlink():
                flush(path)
        flush(Path(here))
