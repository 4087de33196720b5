"""What a data folder holds that is not read: told in a note where the rest is, in the error where
nothing is.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

from zeroconv.data.reading.journal import JOURNAL, written_by_us
from zeroconv.data.reading.names import shown
from zeroconv.data.reading.scan import LISTS, Scan, scan
from zeroconv.data.reading.splits import split_of
from zeroconv.data.reading.texts import read_text
from zeroconv.errors import UserError

_CROOKED = re.compile(r"\\|//|(^|/)\.{1,2}(/|$)|^/")
OFTEN = 200  # times a pass, above which a number is more likely a year
REPEATED = re.compile(r"(\d{1,6})_(.+)", re.S)
PACKED = ".packed.json"  # beside shards: the names of those that we wrote

_ARCHIVES = (".zip", ".7z", ".rar", ".tgz", ".gz", ".xz", ".bz2", ".zst")


def tell_unlisted(folder: Path, path: Path, files: set[str], follow: bool) -> None:
    """One note on what lies in a list's folder and is in none of its lines; `files`: what all of
    its lines name.
    """
    contents = scan(folder, links=follow)
    start = len(os.path.join(folder, ""))
    listed: set[str] = set()  # made when a name is not found as it stands

    parts = []
    for what, paths in (
        ("pictures that no line names", contents.pictures),
        ("texts beside pictures, because the list has the captions", contents.captions),
        (".json files that no line names", contents.records),
        ("shards, because there is a list", _not_ours(contents.shards)),
        (f"lists beside {path.name}", [p for p in contents.lists if p != str(path)]),
    ):
        left = [name for p in paths if (name := p[start:]) not in files]
        if left:
            listed = listed or {_plain(name, folder) for name in files}
            left = [name for name in left if _plain(name, folder) not in listed]
        # hints of conditions that the list does not name now
        if left and (folder / JOURNAL).is_file():
            ours = written_by_us(folder)
            left = [name for name in left if name not in ours]
        if left:
            parts.append(f"{len(left)} {what}, {shown(left[0])} the first")
    contents.tell(parts)


def _plain(name: str, folder: Path) -> str:
    """One way of writing a name below a folder."""
    if name.isascii() and not _CROOKED.search(name):
        return name
    path = os.path.normpath(os.path.join(folder, name.replace("\\", "/")))
    return unicodedata.normalize("NFC", os.path.relpath(path, folder))


def _not_ours(shards: list[str]) -> list[str]:
    """Those that `zeroconv annotate --format` did not write beside a list of its own."""
    ours = {
        folder: written_here(Path(folder))
        for folder in {os.path.dirname(shard) for shard in shards}
    }
    return [
        shard for shard in shards if os.path.basename(shard) not in ours[os.path.dirname(shard)]
    ]


def written_here(folder: Path) -> set[str]:
    """The names of the shards in a folder that `pack` noted as its own."""
    record = folder / PACKED
    try:
        names = json.loads(read_text(record)) if record.is_file() else []
    except (ValueError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def tell_subfolders(folder: Path, names: Sequence[tuple[str, ...]]) -> None:
    """A note on subfolders whose names say what is not done: splits, and repeats that lie
    deeper. `names`: the parts of every picture's path below `folder`."""
    tops = sorted({parts[0] for parts in names if len(parts) > 1})
    splits = {split: top for top in reversed(tops) if (split := split_of(top.lower()))}
    if len(splits) > 1:
        warnings.warn(
            f"{shown(folder)} holds folders of several splits, "
            f"{', '.join(map(shown, splits.values()))}, and the pictures of all are taken; "
            f"name one, as {shown(folder / splits.get('train', tops[0]))}.",
            stacklevel=3,
        )
    for parts in dict.fromkeys(parts[:-1] for parts in names):
        match = next(filter(None, map(REPEATED.fullmatch, parts[1:])), None)
        if match and not REPEATED.fullmatch(parts[0]) and 1 < int(match[1]) <= OFTEN:
            warnings.warn(
                f"{shown('/'.join(parts))} lies too deep for its number of repeats to count; "
                f"name the folder {shown(folder / Path(*parts[: parts.index(match[0])]))}.",
                stacklevel=3,
            )
            return


def refuse(folder: Path, contents: Scan) -> UserError:
    """What to say of a folder in which there is neither a list nor a picture."""
    if contents.lists:
        folders = sorted({os.path.dirname(path) for path in contents.lists})
        return UserError(
            f"the folder {shown(folder)} has no list itself, but there are lists below it; name a "
            f"folder that has one: {' + '.join(map(shown, folders[:4]))}."
        )
    if why := explain(folder):
        return UserError(
            f"the folder {shown(folder)} has no metadata.jsonl and holds no pictures{why}."
        )
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(contents.others.items())[:6])
    there = f"; it holds {kinds}" if kinds else "; it is empty" if not contents.records else ""
    if contents.links or contents.special or contents.hidden:
        there = f"; {(contents.links + contents.special + contents.hidden)[0]} is passed over"
    return UserError(
        f"the folder {shown(folder)} has no metadata.jsonl and holds no pictures (.png, .jpg, "
        f".webp, .avif, .gif, .bmp, .tif, .ppm){there}."
    )


def explain(path: Path) -> str:
    """What a folder or file is that people take for a data set, and how to make it one; "" for
    others.
    """
    if path.is_file():
        return _archive(path.name)
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return ""
    if "dataset_dict.json" in names or any(name.endswith(".arrow") for name in names):
        return (
            ": it is what save_to_disk of the datasets library writes; turn it into parquet with "
            'datasets.load_from_disk(…).to_parquet("train.parquet"), a file a split'
        )
    packed = [name for name in names if name.lower().endswith(_ARCHIVES)]
    return f": {shown(packed[0])} is in it{_archive(packed[0])}" if packed else ""


def _archive(name: str) -> str:
    low = name.lower()
    if low.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")):
        return ", a packed tar: unpack it to a plain .tar, or to a folder"
    if low.endswith(_ARCHIVES):
        return ", an archive: unpack it to a folder"
    if low.endswith((*LISTS, ".jsonl", ".csv")):
        return ", a list: name the folder in which it lies"
    if low.endswith(".arrow"):
        return ", an arrow file: write parquet with the datasets library"
    return ""
