"""Folders of pictures: an imagefolder with metadata.jsonl, and fill50k's prompt.json."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.pose import from_openpose
from zeroconv.data.datasets import Example, Source
from zeroconv.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
_TEXT = ("text", "caption", "prompt")
_HINT = ("conditioning_image", "conditioning_image_file_name", "hint", "hint_file_name", "source")
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
        hint = None if named is None else read_picture(self.folder / named)
        mirrorable = not any(SIDED.search(text) for text in row.text)
        image = read_picture(self.folder / row.image)
        people = None if row.pose is None else read_people(self.folder / row.pose, image.size)
        return Example(row.image, image, row.text, hint, mirrorable, people)

    def shape(self, i: int) -> tuple[int, int]:
        return picture_size(self.folder / self.rows[i].image)


def open_folder(
    folder: Path, split: str | None = None, limit: int | None = None, condition: str | None = None
) -> Source | None:
    """Read the list of a folder, None where it has none; `split` keeps the lines whose column `split` says so. No
    picture is opened."""
    if not folder.exists():
        raise UserError(f"there is no data folder {folder}; check the path in the recipe's data.train.")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with pictures and a metadata.jsonl.")
    for name, parse in (("metadata.jsonl", _row), ("prompt.json", _fill_row)):
        if (folder / name).is_file():
            rows = _lines(folder / name, parse, split)
            return Folder(folder, tuple(rows[:limit]), condition)
    from zeroconv.data.packed import open_packed

    if packed := open_packed(folder, condition):
        return packed if limit is None else replace(packed, rows=packed.rows[:limit])
    return None


def _lines(path: Path, parse: Any, split: str | None) -> list[Row]:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                row = parse(value)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                raise UserError(f"{path}, line {number}: not a picture's metadata ({what}).") from error
            if split is None or value.get("split", split) == split:
                rows.append(row)
    hinted = sum(row.hint is not None for row in rows)
    if 0 < hinted < len(rows):
        raise UserError(f"{path} names a hint for {hinted} of {len(rows)} pictures; give every picture one, or none.")
    return rows


def _row(value: Mapping[str, Any]) -> Row:
    column = next((name for name in _TEXT if name in value), None)
    if column is None:
        raise KeyError("text")
    hint = next((str(value[name]) for name in _HINT if value.get(name)), None)
    pose = value.get("pose")
    pose = str(pose) if str(pose).endswith(".json") else None
    named = {name: str(value[name]) for name in CONDITIONS if isinstance(value.get(name), str)}
    if pose is not None:
        named.pop("pose", None)
        if "pose_image" in value:
            named["pose"] = str(value["pose_image"])
    return Row(str(value["file_name"]), _captions(value[column]), hint, pose, tuple(named.items()))


def _fill_row(value: Mapping[str, Any]) -> Row:
    return Row(str(value["target"]), _captions(value["prompt"]), str(value["source"]))


def _captions(value: Any) -> tuple[str, ...]:
    captions = (value,) if isinstance(value, str) else tuple(value)
    if not captions or not all(isinstance(caption, str) for caption in captions):
        raise TypeError("a caption must be text, or a list of texts")
    return captions


def read_picture(path: Path) -> Image.Image:
    """RGB; what is transparent becomes white. Raises UserError."""
    try:
        with Image.open(path) as opened:
            if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
                layer = opened.convert("RGBA")
                ground = Image.new("RGBA", layer.size, "white")
                return Image.alpha_composite(ground, layer).convert("RGB")
            return opened.convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}).") from error


def picture_size(file: Path | IO[bytes]) -> tuple[int, int]:
    """Width and height, from the header alone. Raises UserError."""
    try:
        with Image.open(file) as opened:
            return opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} cannot be read as a picture ({error}).") from error


def read_people(path: Path, size: tuple[int, int]) -> tuple[ndarray, ...]:
    """The people of OpenPose's JSON in pixels of a picture of `size`. Raises UserError."""
    try:
        people, canvas = from_openpose(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as OpenPose's JSON ({error}).") from error
    scale = np.array([size[0] / canvas[0], size[1] / canvas[1], 1.0], np.float32)
    return tuple(person * scale for person in people)


def signature(path: Path) -> str:
    """Names a file's content by its size, first and last 16 KiB: a changed PNG or JPEG differs at its end."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(file.read(1 << 14))
            file.seek(max(0, size - (1 << 14)))
            digest.update(file.read())
    except OSError:
        return "missing"
    return f"{size}-{digest.hexdigest()[:32]}"
