"""What lies in a data folder: pictures and captions, and what is passed over, so that it can be
told.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from zeroconv.data.reading.names import shown
from zeroconv.data.reading.regular import what
from zeroconv.errors import UserError
from zeroconv.pictures import PICTURE_SUFFIXES

SUFFIXES = set(PICTURE_SUFFIXES)
CAPTIONS = (".txt", ".caption")
LISTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "prompt.json")
SHARDS = (".parquet", ".tar")

# what lies beside data and is none; all of these are passed over without a word
_BESIDE = re.compile(
    r"(readme|licen[cs]e|copying|notice|authors|citation|changelog|dataset_infos?|state|thumbs|desktop|icon\r?)"
    r"(\..{0,8})?|.*\.(md|rst|py|npz|yaml|yml|toml|lock|log|html?|css)|broken\.json|_success",
    re.I | re.S,
)
_FOLDERS_BESIDE = {
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__pycache__",
}
_HIDDEN_BESIDE = {".git", ".cache", ".thumbnails", ".ipynb_checkpoints", ".Trash-1000", ".venv"}
_ENDS = tuple(SUFFIXES)
_DEEPEST = 64  # folders in folders


@dataclass
class Scan:
    """A folder's files by kind, as paths that begin with `folder`, each in the order of names."""

    folder: Path
    pictures: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)  # .json and .jsonl: captions, joints, lists
    lists: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # suffix → how many files of no use
    special: list[str] = field(default_factory=list)  # what is no ordinary file, and what it is
    links: list[str] = field(default_factory=list)  # linked folders that were not entered
    hidden: list[str] = field(default_factory=list)  # hidden pictures and folders

    def tell(self, unused: Iterable[str] = ()) -> None:
        """One note on everything that was passed over; `unused`: sentences of the caller's on what
        it left.
        """
        parts = [*unused]
        if self.others:
            kinds = ", ".join(
                f"{count} {suffix}" for suffix, count in sorted(self.others.items())[:12]
            )
            parts.append(f"files of other kinds ({kinds})")
        if self.hidden:
            parts.append(
                f"{len(self.hidden)} hidden pictures or folders, {self.hidden[0]} the first"
            )
        if self.links:
            parts.append(
                f"{len(self.links)} linked folders, {self.links[0]} the first (?links=true enters "
                "them)"
            )
        if self.special:
            parts.append(f"{len(self.special)} special files, {self.special[0]} the first")
        if parts:
            warnings.warn(f"passed over in {shown(self.folder)}: {'; '.join(parts)}.", stacklevel=3)


def scan(folder: Path, links: bool = False, without: Iterable[Path] = ()) -> Scan:
    """Look at every name below a folder; no file is opened. Linked folders are entered only with
    `links`.

    `without`: folders that are left out. Raises UserError for a folder that cannot be listed, or is
    too deep.
    """
    walk = _Walk(Scan(folder), links, {os.path.realpath(path) for path in without})
    walk.seen.add(os.path.realpath(folder))
    walk.into(os.fspath(folder), 0)

    result = walk.result
    for paths in (result.pictures, result.captions, result.records, result.lists, result.shards):
        paths.sort(key=lambda path: path.split(os.sep))  # as Path objects are ordered
    return result


@dataclass
class _Walk:
    """A walk through folders; what it sees goes into `result`."""

    result: Scan
    links: bool
    left_out: set[str]  # real paths
    seen: set[str] = field(default_factory=set)  # real paths of folders

    def into(self, folder: str, depth: int) -> None:
        if depth > _DEEPEST:
            where = shown(folder)
            raise UserError(
                f"{where} lies more than {_DEEPEST} folders deep; name one nearer to the data."
            )
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"the folder {shown(folder)} cannot be listed ({reason}).") from error
        for entry in entries:
            self._look(entry, depth)

    def _look(self, entry: os.DirEntry[str], depth: int) -> None:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
            mode = 0 if is_folder or is_file else entry.stat().st_mode
        except OSError:
            if _wanted(entry.name):
                self.result.special.append(f"{self._relative(entry)} (a link to nothing)")
            return

        if is_folder:
            self._enter(entry, depth)
        elif is_file:
            self._sort_in(entry)
        else:
            self.result.special.append(f"{self._relative(entry)} ({what(mode)})")

    def _enter(self, entry: os.DirEntry[str], depth: int) -> None:
        """Go into a folder, or note why not. A linked one is entered once, so that circles end."""
        real = os.path.realpath(entry.path)
        if real in self.left_out or entry.name.lower() in _FOLDERS_BESIDE:
            return

        if entry.name.startswith("."):
            self.result.hidden += [self._relative(entry)] if _holds_pictures(entry) else []
        elif entry.is_symlink() and (not self.links or real in self.seen):
            self.result.links.append(self._relative(entry))
        else:
            self.seen.add(real)
            self.into(entry.path, depth + 1)

    def _sort_in(self, entry: os.DirEntry[str]) -> None:
        result, name = self.result, entry.name
        suffix = os.path.splitext(name)[1].lower()
        if name[0] == ".":
            # ._a.png is what macOS keeps of a.png
            if name.lower().endswith(_ENDS) and not name.startswith("._"):
                result.hidden.append(self._relative(entry))
        elif suffix in SUFFIXES:
            result.pictures.append(entry.path)
        elif name in LISTS:
            result.lists.append(entry.path)
        elif suffix in SHARDS:
            result.shards.append(entry.path)
        elif _BESIDE.fullmatch(name):
            return
        elif suffix in CAPTIONS:
            result.captions.append(entry.path)
        elif suffix in (".json", ".jsonl"):
            result.records.append(entry.path)
        else:
            result.others[shown(suffix) if 0 < len(suffix) < 12 else "without a suffix"] += 1

    def _relative(self, entry: os.DirEntry[str]) -> str:
        return shown(os.path.relpath(entry.path, self.result.folder))


def _wanted(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in (*SUFFIXES, *CAPTIONS) or name in LISTS


def _holds_pictures(folder: os.DirEntry[str]) -> bool:
    """Whether a hidden folder has pictures right in it that somebody may miss."""
    if folder.name in _HIDDEN_BESIDE:
        return False
    try:
        return any(name.lower().endswith(_ENDS) for name in os.listdir(folder))
    except OSError:
        return True
