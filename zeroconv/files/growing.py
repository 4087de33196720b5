"""Folders that are filled file by file, by a command that goes on with what is there."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zeroconv.files.checks import check_output
from zeroconv.files.errors import WriteError, shown
from zeroconv.files.locks import LOCK, lock_folder
from zeroconv.files.manifest import DESKTOP, MANIFEST, entry_of, unchanged
from zeroconv.files.temporary import is_temporary, sweep
from zeroconv.files.writing import atomic_write

Known = Callable[[Path], bool]


@contextmanager
def filling(
    path: str | os.PathLike,
    what: str,
    notes: Iterable[str] = (),
    lists: Iterable[str] = (),
) -> Iterator[Path]:
    """Hold a folder while files are written into it one by one; see `begin_folder`.

    Meanwhile no other process can hold it. What killed processes left half written is swept.
    notes: names of files by which other versions told such a folder. lists: names of files that
    are written anew each time; one that was changed since is not replaced. Raises WriteError.
    """
    folder = Path(path)
    check_output(folder, "into")
    check_begun(folder, what, notes)
    with lock_folder(folder, what):
        sweep(folder, recursive=True)
        begin_folder(folder, what, lambda begun: any((begun / n).is_file() for n in notes))
        _check_lists(folder, lists)
        yield folder
        there = [name for name in lists if (folder / name).is_file()]
        _note(folder, what, {name: entry_of(folder / name) for name in there})


def replace_marked(path: Path) -> None:
    """Raise WriteError where a file is there that zeroconv did not write, by its sign (`is_ours`).

    For files whose names are made by a command, inside a folder that it fills.
    """
    if os.path.lexists(path):
        check_output(path, "file", ours=True)


def _check_lists(folder: Path, names: Iterable[str]) -> None:
    noted = _read(folder).get("files")
    entries = noted if isinstance(noted, dict) else {}
    for name in names:
        entry = entries.get(name)
        changed = isinstance(entry, dict) and not unchanged(folder / name, entry)
        if changed and os.path.lexists(folder / name):
            sentence = f"{shown(folder / name)} was changed since zeroconv wrote it"
            raise WriteError(f"{sentence}; move it away.", errno.EEXIST)


def begin_folder(path: str | os.PathLike, what: str, known: Known | None = None) -> None:
    """Note in a folder, in `.zeroconv.json`, that it is filled with `what`; it is made if missing.

    It may be absent, empty, or begun for the same `what`, or one that `known` tells for such a one
    of another version. Files of others that came later stay. Raises WriteError, a UserError, where
    the folder is another one or cannot be written.
    """
    folder = Path(path)
    if _begun_for(folder) == what:
        return
    if known is not None and folder.is_dir() and known(folder):
        # one that can only be read may be whole
        with suppress(WriteError):
            _note(folder, what)
        return
    check_output(folder, "into")
    check_begun(folder, what)
    _note(folder, what)


def _note(folder: Path, what: str, files: dict[str, Any] | None = None) -> None:
    if files is None and (folder / MANIFEST).exists():
        return
    note = {"zeroconv": "a folder filled file by file", "what": what, "files": files or {}}
    with atomic_write(folder / MANIFEST, follow=False) as temporary:
        temporary.write_text(json.dumps(note) + "\n", encoding="ascii")


def check_begun(folder: Path, what: str, notes: Iterable[str] = ()) -> None:
    """Raise WriteError where a folder holds something and was not begun for `what`."""
    if not folder.is_dir():
        return
    if _begun_for(folder) == what or any((folder / name).is_file() for name in notes):
        return
    ours = (LOCK, *DESKTOP)
    names = sorted(
        name for name in os.listdir(folder) if name not in ours and not is_temporary(name)
    )
    if names:
        where = f"the folder {shown(folder)} holds {shown(names[0])} and is none of {what}"
        raise WriteError(f"{where}; name another folder.", errno.ENOTEMPTY)


def _begun_for(folder: Path) -> str | None:
    what = _read(folder).get("what")
    return what if isinstance(what, str) else None


def _read(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
