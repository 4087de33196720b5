"""Folders that are filled file by file, by a command that goes on with what is there."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroconv.files.checks import check_output
from zeroconv.files.errors import WriteError, shown
from zeroconv.files.locks import LOCK, lock_folder
from zeroconv.files.manifest import MANIFEST
from zeroconv.files.temporary import is_temporary, sweep
from zeroconv.files.writing import atomic_write


@contextmanager
def filling(path: str | os.PathLike, what: str, notes: Iterable[str] = ()) -> Iterator[Path]:
    """Hold a folder while files are written into it one by one; it is made where it is missing.

    It may be absent, empty, or one that was begun for the same `what`; that is noted in
    `.zeroconv.json`. notes: names of files by which other versions told such a folder. What killed
    processes left half written is swept. Files of others in it stay. Raises WriteError, a
    UserError, where the folder is another one, cannot be written, or another process holds it.
    """
    folder = Path(path)
    check_output(folder, "into")
    check_begun(folder, what, notes)
    with lock_folder(folder, what):
        sweep(folder, recursive=True)
        if not (folder / MANIFEST).exists():
            note = {"zeroconv": "a folder filled file by file", "what": what}
            with atomic_write(folder / MANIFEST, follow=False) as temporary:
                temporary.write_text(json.dumps(note) + "\n", encoding="ascii")
        yield folder


def check_begun(folder: Path, what: str, notes: Iterable[str] = ()) -> None:
    """Raise WriteError where a folder holds something and was not begun for `what`."""
    if not folder.is_dir():
        return
    if _begun_for(folder) == what or any((folder / name).is_file() for name in notes):
        return
    names = sorted(name for name in os.listdir(folder) if name != LOCK and not is_temporary(name))
    if names:
        where = f"the folder {shown(folder)} holds {shown(names[0])} and is none of {what}"
        raise WriteError(f"{where}; name another folder.", errno.ENOTEMPTY)


def _begun_for(folder: Path) -> str | None:
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
        return str(value["what"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
