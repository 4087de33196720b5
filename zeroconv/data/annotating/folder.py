"""The folder that annotating writes: names of its files, its journal, and which files in it are
ours to replace.

OUT/.annotated.jsonl holds a line a picture that is done: its name, what its files were made from,
and the files. OUT/.annotating.jsonl is there while work goes on, or after a kill: the names that
were begun.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zeroconv.data.dataset import Dataset
from zeroconv.data.reading.journal import (
    BEGUN,
    JOURNAL,
    claims,
    is_sound,
    journal_lines,
    read_journal,
)
from zeroconv.data.reading.names import distinct, label, shown
from zeroconv.data.reading.scan import SUFFIXES
from zeroconv.data.sources.imagefolder import Folder
from zeroconv.data.sources.packed import Packed
from zeroconv.errors import UserError
from zeroconv.files import atomic_write, sweep

__all__ = ["JOURNAL", "begin", "check_ours", "claims", "finish", "is_done", "read_journal", "stems"]

LISTS = ("metadata.jsonl", "broken.json")


def stems(dataset: Dataset) -> list[str]:
    """The name of each example's files, without suffix: a label, whatever the data calls it.

    Raises UserError where two pictures of a folder would become one file; examples in shards get
    another name there.
    """
    named = [_stem(dataset, i) for i in range(len(dataset))]
    taken = set(named)
    for first, later in distinct(named):
        source = dataset.sources[dataset.rows[later][0]]
        if not isinstance(source, Packed):
            raise UserError(
                f"{dataset.name(first)} and {dataset.name(later)} would both become "
                f"{named[later]}.png (some file systems take no notice of case and accents): "
                "rename one of them."
            )
        number = 2
        while f"{named[later]}-{number}" in taken:
            number += 1
        named[later] = f"{named[later]}-{number}"
        taken.add(named[later])
    return named


def _stem(dataset: Dataset, i: int) -> str:
    """An example's own name; views of one picture keep their number."""
    number, index = dataset.rows[i]
    source = dataset.sources[number]
    if isinstance(source, Packed):
        return label(source.label(index))
    if isinstance(source, Folder):
        name = source.rows[index].image.replace("\\", "/")
        if os.path.isabs(name):
            name = os.path.relpath(name, source.folder)
        return label(posixpath.splitext(name)[0]).removeprefix("images/")

    name, _, view = dataset.name(i).partition("#")
    stem = label(posixpath.splitext(name)[0]).removeprefix("images/")
    return f"{stem}-{view}" if view else stem


def files_of(stem: str, conditions: Iterable[str], suffix: str = ".png") -> list[str]:
    """Every file that a picture may get, relative to OUT."""
    pose = [f"pose/{stem}.json"] if "pose" in (conditions := tuple(conditions)) else []
    return [f"images/{stem}{suffix}", *(f"{name}/{stem}.png" for name in conditions), *pose]


# ---------------------------------------------------------------- what is there


def is_done(out: Path, line: dict[str, Any] | None, key: str) -> bool:
    """Whether a journal's line says that a picture's files were made from `key`, and they are
    there.
    """
    if line is None or line.get("key") != key or "broken" in line:
        return False
    names = [line.get("file_name"), *line.get("hints", {}).values(), line.get("pose")]
    return all((out / name).is_file() for name in names if name)


def check_ours(out: Path, todo: Iterable[str], conditions: Sequence[str]) -> None:
    """Raises UserError where a file that is about to be written is there and was not written by us,
    or where a folder in OUT is a link that leads out of it.
    """
    begun = [line for line in journal_lines(out / BEGUN) if label(line["name"]) == line["name"]]
    ours = {name for line in begun for name in _claimed(line["name"], line.get("conditions", []))}
    for line in journal_lines(out / JOURNAL):
        if is_sound(line):
            ours |= claims(line)

    known = (out / JOURNAL).is_file() or (out / BEGUN).is_file()
    names = [*LISTS] if not known else []
    names += [name for stem in todo for name in _claimed(stem, conditions)]
    homes = {Path(name).parent for name in names}
    real = Path(os.path.realpath(out))
    for home in homes:
        if not Path(os.path.realpath(out / home)).is_relative_to(real):
            raise UserError(
                f"{shown(out / home)} is a link that leads out of {shown(out)}; name another --out."
            )
    there = {home: _listed(out / home) for home in homes}
    for name in names:
        if Path(name).name in there[Path(name).parent] and name not in ours:
            raise UserError(
                f"{shown(out / name)} is there already and zeroconv did not write it; move it "
                "away, or name another --out."
            )


def _claimed(stem: str, conditions: Iterable[str]) -> list[str]:
    plain = files_of(stem, [str(name) for name in conditions])
    return [*plain, *(f"images/{stem}{suffix}" for suffix in SUFFIXES if suffix != ".png")]


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


# ---------------------------------------------------------------- writing


def begin(out: Path, todo: Iterable[str], conditions: Sequence[str]) -> None:
    """Note what is about to be written, sweep what a killed run left half written, and end a
    journal's torn line.
    """
    sweep(out, recursive=True)
    with open(out / BEGUN, "a", encoding="utf-8") as file:
        file.write("\n")  # the last line may be torn
        for stem in todo:
            file.write(
                json.dumps({"name": stem, "conditions": [*conditions]}, ensure_ascii=False) + "\n"
            )
        file.flush()
        os.fsync(file.fileno())

    journal = out / JOURNAL
    if journal.is_file() and not _ends_a_line(journal):
        with open(journal, "ab") as torn:
            torn.write(b"\n")


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def finish(
    out: Path,
    lines: Sequence[dict[str, Any]],
    others: Sequence[dict[str, Any]],
    broken: dict[str, str],
) -> None:
    """metadata.jsonl and the journal in the data set's order, whatever order the work was done in.

    others: lines of pictures that this run did not ask for; the journal keeps them, and their files
    are kept.
    """
    rows = [_metadata(line) for line in lines if "broken" not in line]
    for name, content in (("metadata.jsonl", rows), (JOURNAL, [*lines, *others])):
        with atomic_write(out / name) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    if broken:
        with atomic_write(out / "broken.json") as temporary:
            temporary.write_text(
                json.dumps(broken, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
    else:
        (out / "broken.json").unlink(missing_ok=True)
    (out / BEGUN).unlink(missing_ok=True)


def _metadata(line: dict[str, Any]) -> dict[str, Any]:
    text = line["text"][0] if len(line["text"]) == 1 else line["text"]
    row = {
        "file_name": line["file_name"],
        "text": text,
        "conditioning_image": next(iter(line["hints"].values())),
    }
    row |= line["hints"] | ({"pose": line["pose"]} if "pose" in line else {})
    if "pose" in line["hints"]:
        row["pose_image"] = line["hints"]["pose"]
    return row
