"""One process at a time in a folder, however it was started."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zeroconv.files.errors import WriteError, cannot_write, shown

LOCK = ".zeroconv.lock"
_PATIENCE = 0.3  # seconds; one that ends removes its file, which the next has to make anew


@contextmanager
def lock_folder(path: str | os.PathLike, purpose: str) -> Iterator[None]:
    """Hold a folder, which is made where it is missing; inside `with` no other process can hold it.

    purpose: what is done there, for the sentence that the other one reads ("training"). The
    system's own lock is used, which ends with its process, so that nothing stale can block; its
    file is removed at the end. Raises WriteError, a UserError, where another process holds the
    folder or it cannot be written. Where the file system has no locks, a note says so and nothing
    is held.
    """
    from filelock import FileLock, Timeout

    folder = Path(path)
    file = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _may_be_ours(file):
            sentence = f"{shown(file)} is in the place of zeroconv's lock; remove it."
            raise WriteError(sentence, errno.EEXIST)
        lock = FileLock(file, timeout=_PATIENCE)
        lock.acquire()
    except Timeout:
        what = f"another process{_holder(file)} works in {shown(folder)}"
        sentence = f"{what}; wait until it ends, or name another folder."
        raise WriteError(sentence, errno.EAGAIN) from None
    except (OSError, NotImplementedError) as error:
        none = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
        if isinstance(error, OSError) and error.errno not in none:
            raise cannot_write(folder, error) from error
        sentence = f"{shown(folder)} cannot be locked: let no second process work in it."
        warnings.warn(sentence, stacklevel=3)
        yield
        return
    try:
        with suppress(OSError):  # only for the sentence
            file.write_text(f"{os.getpid()} {purpose}\n", encoding="utf-8")
        yield
    finally:
        # removed while it is held: whoever waits on this file sees that it has no name, and makes
        # another
        with suppress(OSError):
            file.unlink()
        lock.release()


def _may_be_ours(file: Path) -> bool:
    """Absent, empty, or with the line that we write."""
    if not os.path.lexists(file):
        return True
    if file.is_symlink() or not file.is_file():
        return False
    return re.fullmatch(rb"(\d+ [^\n]*\n)?", file.read_bytes()[:1000]) is not None


def _holder(file: Path) -> str:
    """ " (1234, training)", as far as it is known."""
    try:
        number, _, purpose = file.read_text(encoding="utf-8").strip()[:200].partition(" ")
    except (OSError, ValueError):
        return ""
    return f" ({shown(number)}, {shown(purpose)})" if number.isdigit() else ""
