"""Writing a file so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroconv.files import temporary as temporaries
from zeroconv.files.errors import cannot_write
from zeroconv.files.modes import as_usual
from zeroconv.files.targets import Target, target_of


@contextmanager
def atomic_write(path: str | os.PathLike, sync: bool = True, follow: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on an exception it is
    removed.

    The data is flushed to disk before the rename, so that after a power cut the name never points
    at an empty file. `sync=False` leaves that out, for thousands of small files whose writer looks
    at them again before it trusts them. Links are followed and streams written through, see
    `zeroconv.files.targets`; with `follow=False` both are refused. Raises WriteError, a UserError,
    where the path cannot be written; a full disk stays an OSError.
    """
    target = target_of(path, follow)
    if target.stream:
        with _through(target, Path(path).name) as scratch:
            yield scratch
        return
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporaries.make_file(target.path)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield temporary
        if sync:
            flush(temporary)
        as_usual(temporary, like=target.path)
        try:
            _replace(temporary, target.path)
        except OSError as error:
            raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except OSError as error:
        # a file that is mounted, as containers do, can be written but has no other in its place
        if error.errno != errno.EBUSY or not path.is_file():
            raise
        shutil.copyfile(temporary, path)


@contextmanager
def _through(target: Target, name: str) -> Iterator[Path]:
    """A temporary file elsewhere, called `name`, whose bytes go into the stream at the end."""
    with tempfile.TemporaryDirectory(prefix="zeroconv-") as folder:
        scratch = Path(folder, name)
        scratch.touch()
        yield scratch
        try:
            target.send(scratch)
        except OSError as error:
            raise cannot_write(target.path, error) from error


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
