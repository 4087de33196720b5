"""The journal of an annotated folder: what each picture's files were made from, a line a
picture.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zeroconv.data.reading.names import label
from zeroconv.data.reading.scan import SUFFIXES

JOURNAL = ".annotated.jsonl"
BEGUN = ".annotating.jsonl"


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Name → its last line. A line cut short by a kill, or one that names other files than ours, is
    passed over.
    """
    return {line["name"]: line for line in journal_lines(path) if is_sound(line)}


def journal_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and isinstance(line.get("name"), str):
                yield line


def is_sound(line: dict[str, Any]) -> bool:
    """Whether a line says what we would have written: its names decide which files are read and
    replaced.
    """
    stem = line["name"]
    if label(stem) != stem or not all(_may_be_ours(stem, name) for name in claims(line)):
        return False
    if "broken" in line:
        return isinstance(line["broken"], str)
    text, hints = line.get("text"), line.get("hints")
    captions = isinstance(text, list) and all(isinstance(caption, str) for caption in text)
    return captions and isinstance(hints, dict) and isinstance(line.get("file_name"), str)


def _may_be_ours(stem: str, name: object) -> bool:
    """FOLDER/STEM.png and the like, where FOLDER is a plain name."""
    if not isinstance(name, str):
        return False
    folder, _, rest = name.partition("/")
    start, suffix = os.path.splitext(rest)
    return label(folder) == folder and start == stem and suffix in (*SUFFIXES, ".json")


def claims(line: dict[str, Any] | None) -> set[str]:
    """Every file that a line says we wrote for its picture, now or in a run before."""
    if line is None:
        return set()
    hints, before = line.get("hints"), line.get("before")
    names = [line.get("file_name"), line.get("pose")]
    names += list(hints.values()) if isinstance(hints, dict) else []
    names += before if isinstance(before, list) else []
    return {name if isinstance(name, str) else "" for name in names if name is not None}


def written_by_us(out: Path) -> set[str]:
    """Every file in a folder that its journal says annotating wrote, relative to it."""
    lines = (line for name in (JOURNAL, BEGUN) for line in journal_lines(out / name))
    return {name for line in lines if is_sound(line) for name in claims(line)}
