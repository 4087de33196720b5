"""Which files in a folder are ours: a list of them, with checksums, in the folder itself.

A folder that zeroconv writes as one thing (a control, a base, a gallery) holds `.zeroconv.json`.
What it names and what is still as we left it may be replaced by us; everything else in the folder
belongs to somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MANIFEST = ".zeroconv.json"
# what a desktop puts into every folder that is looked at; kept, and no reason to refuse a folder
DESKTOP = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".directory"})


def write_manifest(folder: Path, name: str) -> None:
    """List the files in `folder`, which is to be called `name`; the list is written last and makes
    it complete.
    """
    entries: dict[str, Any] = {}
    for path in _entries(folder):
        if path.is_dir() and not path.is_symlink():
            continue
        # the first: of a folder that was copied into this one
        if _label(path, folder) == MANIFEST or is_desktop(path):
            continue
        entries[_label(path, folder)] = entry_of(path)
    what = {
        "zeroconv": "a folder written as one thing",
        "name": name,
        "made": time.time_ns(),
        "files": entries,
    }
    text = json.dumps(what, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="ascii")


def entry_of(path: Path) -> dict[str, Any]:
    """What is noted of a file, by which `unchanged` knows it again. Raises OSError."""
    status = os.lstat(path)
    return {"size": status.st_size, "times": _times(status), "sha256": _checksum(path)}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A folder's list, or None where it has none that can be read."""
    path = folder / MANIFEST
    try:
        if path.is_symlink() or not path.is_file():
            return None
        value = json.loads(path.read_text(encoding="ascii"))
        files = value["files"]
        sound = (
            isinstance(value["name"], str)
            and isinstance(value["made"], int)
            and isinstance(files, dict)
            and all(isinstance(entry, dict) for entry in files.values())
        )
        return value if sound else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def stranger_in(folder: Path) -> Path | None:
    """The first thing in a folder that zeroconv did not write there, or that was changed since;
    None: there is none.

    An empty folder has none. Folders count by what they hold; empty ones that we did not list are
    strangers.
    """
    manifest = read_manifest(folder)
    files = {} if manifest is None else manifest["files"]
    parents = {parent for label in files for parent in _parents(label)}
    for path in _entries(folder):
        label = _label(path, folder)
        if (label == MANIFEST and manifest is not None) or is_desktop(path):
            continue
        if path.is_dir() and not path.is_symlink():
            if label not in parents and all(is_desktop(inner) for inner in path.iterdir()):
                return path
        elif label not in files or not unchanged(path, files[label]):
            return path
    return None


def is_desktop(path: Path) -> bool:
    """Whether it is a file of a desktop's own, such as `.DS_Store`."""
    return path.name in DESKTOP and path.is_file() and not path.is_symlink()


def keep_desktop(old: Path, new: Path) -> None:
    """Move a desktop's own files from a folder into the one that replaced it, where they fit."""
    for path in [path for path in _entries(old) if is_desktop(path)]:
        moved = new / path.relative_to(old)
        if moved.parent.is_dir() and not os.path.lexists(moved):
            with suppress(OSError):
                os.rename(path, moved)


def _entries(folder: Path) -> Iterator[Path]:
    """Everything below a folder, folders included, links not followed, in order of names."""
    for here, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted((*folders, *names)):
            yield Path(here, name)


def _raise(error: OSError) -> None:
    raise error


def unchanged(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a file is the one that was noted."""
    with suppress(OSError):
        status = os.lstat(path)
        if status.st_size != entry.get("size"):
            return False
        # a copy of the folder has other times; then the content decides
        return _times(status) == entry.get("times") or _checksum(path) == entry.get("sha256")
    return False


def _times(status: os.stat_result) -> list[int]:
    """What no change of a file leaves as it was: the second of them cannot be set."""
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _checksum(path: Path) -> str:
    """Of a file's bytes, or of where a link points; "" for what is neither."""
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _label(path: Path, folder: Path) -> str:
    """Its name in the list; names that are no UTF-8 keep their bytes as escapes."""
    text = path.relative_to(folder).as_posix()
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _parents(label: str) -> Iterator[str]:
    parts = label.split("/")[:-1]
    yield from ("/".join(parts[: i + 1]) for i in range(len(parts)))
