"""Folders of pictures with a list: an imagefolder's metadata.jsonl or .csv, and fill50k's prompt.json."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.pose import from_openpose
from zeroconv.data.columns import Columns
from zeroconv.data.datasets import Example, Source
from zeroconv.data.pictures import picture_size, read_hint, read_picture
from zeroconv.data.signatures import signature
from zeroconv.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
# captions that a mirror makes wrong; other writing in a picture cannot be known from here
SIDED = re.compile(r"\b(left|right|leftmost|rightmost|clockwise|counterclockwise|east|west|text|writing|sign)\b", re.I)


@dataclass(frozen=True)
class Row:
    image: str  # relative to the folder
    text: tuple[str, ...]
    hint: str | None = None
    pose: str | None = None  # OpenPose's JSON of the picture's people
    named: tuple[tuple[str, str], ...] = ()  # hints of several conditions: (condition, file)

    def hint_of(self, condition: str | None) -> str | None:
        """The file of a condition's hint, in its own column or the usual one."""
        return dict(self.named).get(condition or "", self.hint)


@dataclass(frozen=True)
class Folder:
    """Pictures listed by a file beside them; read when asked for."""

    folder: Path
    rows: tuple[Row, ...]
    condition: str | None = None
    generated: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        return self.rows[i].image

    def key(self, i: int) -> str:
        row = self.rows[i]
        files = [signature(self.folder / name) for name in (row.image, row.hint, *dict(row.named).values()) if name]
        return json.dumps([*files, row.text])

    def example(self, i: int, size: int | None, condition: str | None) -> Example:
        row = self.rows[i]
        named = row.hint_of(condition)
        hint = None if named is None else read_hint(self.folder / named, self.condition or condition)
        mirrorable = not any(SIDED.search(text) for text in row.text)
        image = read_picture(self.folder / row.image)
        people = None if row.pose is None else read_people(self.folder / row.pose, image.size)
        return Example(row.image, image, row.text, hint, mirrorable, people)

    def shape(self, i: int) -> tuple[int, int]:
        return picture_size(self.folder / self.rows[i].image)


def open_folder(
    folder: Path,
    split: str | None = None,
    limit: int | None = None,
    condition: str | None = None,
    columns: Columns | None = None,
    config: str | None = None,
) -> Source | None:
    """Read the list of a folder, None where it has none. No picture is opened.

    The list (metadata.jsonl or .csv, prompt.json) or the shards may lie in `folder`, in its data/, or in a folder named
    by the split. `split` keeps the lines whose column `split` says so, and shards whose names begin with it; `config`
    is the part of a hub's data set where it has several.
    """
    if not folder.exists():
        raise UserError(f"there is no data folder {folder}; check the path in the recipe's data.train.")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with pictures and a metadata.jsonl.")
    columns = columns or Columns()
    for place in (folder, folder / "data", folder / (split or "train"), folder / "data" / (split or "train")):
        for name in ("metadata.jsonl", "metadata.csv", "prompt.json"):
            if (place / name).is_file():
                rows = _lines(place / name, columns, split)
                return Folder(place, tuple(rows[:limit]), condition)
    from zeroconv.data.packed import open_packed

    return open_packed(folder, condition, columns, split, config, limit)


def _lines(path: Path, columns: Columns, split: str | None) -> list[Row]:
    rows = []
    for number, line in _objects(path):
        try:
            value = json.loads(line) if isinstance(line, str) else line
            row = _row(value, columns)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}, line {number}: not a picture's metadata ({what}).") from error
        if split is None or value.get("split", split) == split:
            rows.append(row)
    hinted = sum(row.hint is not None for row in rows)
    if 0 < hinted < len(rows):
        raise UserError(f"{path} names a hint for {hinted} of {len(rows)} pictures; give every picture one, or none.")
    return rows


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, JSON to be read, or the fields of a line of CSV)."""
    with path.open(encoding="utf-8", newline="" if path.suffix == ".csv" else None) as lines:
        if path.suffix == ".csv":
            reader = csv.DictReader(lines)
            yield from ((reader.line_num, row) for row in reader)
        else:
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _row(value: Mapping[str, Any], columns: Columns) -> Row:
    hint = columns.hint(value)
    pose = value.get("pose")
    pose = str(pose) if str(pose).endswith(".json") else None
    named = {name: str(value[name]) for name in CONDITIONS if isinstance(value.get(name), str)}
    if pose is not None:
        named.pop("pose", None)
        if "pose_image" in value:
            named["pose"] = str(value["pose_image"])
    image = str(columns.image(value))
    return Row(image, columns.caption(value), None if hint is None else str(hint), pose, tuple(named.items()))


def read_people(path: Path, size: tuple[int, int]) -> tuple[ndarray, ...]:
    """The people of OpenPose's JSON in pixels of a picture of `size`. Raises UserError."""
    try:
        people, canvas = from_openpose(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as OpenPose's JSON ({error}).") from error
    scale = np.array([size[0] / canvas[0], size[1] / canvas[1], 1.0], np.float32)
    return tuple(person * scale for person in people)
