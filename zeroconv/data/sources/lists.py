"""Lists of a folder's pictures: an imagefolder's metadata.jsonl, .csv or .parquet, and fill50k's
prompt.json."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroconv.conditions import CONDITIONS
from zeroconv.data.reading.names import escapes, inside, is_name, shown
from zeroconv.data.reading.texts import MAX_LINE, read_lines
from zeroconv.data.sources import parquets
from zeroconv.data.sources.columns import COLUMNS, Columns, is_picture_name
from zeroconv.errors import UserError

# columns that say something of a picture that training does not need
_ASIDE = {
    "split",
    "width",
    "height",
    "id",
    "url",
    "key",
    "sha256",
    "hash",
    "license",
    "licence",
    "index",
}
_MAX_KEYS = 1000  # of a line


@dataclass(frozen=True)
class Row:
    """A picture of a list; names of files are relative to the list's folder."""

    image: str
    text: tuple[str, ...]
    hint: str | None = None
    pose: str | None = None  # OpenPose's JSON of the picture's people
    named: tuple[tuple[str, str], ...] = ()  # hints of several conditions: (condition, file)
    mask: str | None = None  # where the loss counts

    def hint_of(self, condition: str | None) -> str | None:
        """The file of a condition's hint, in its own column or the usual one."""
        return dict(self.named).get(condition or "", self.hint)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the row names."""
        if self.hint is None and self.pose is None and not self.named and self.mask is None:
            return (self.image,)
        names = (self.image, self.hint, self.pose, self.mask, *(name for _, name in self.named))
        return tuple(name for name in names if name is not None)


def read_list(
    path: Path, columns: Columns, split: str | None = None, roots: Sequence[Path] | None = ()
) -> tuple[list[Row], set[str]]:
    """The rows of a list, of one split where one is asked for, and the names of all files in it.

    roots: see `names.inside`. A note names columns that are not used. Raises UserError with the
    line: what is no picture's metadata, a name that leads out of the folder, a hint that some rows
    have and others lack.
    """
    rows: list[Row] = []
    files: set[str] = set()
    seen: set[str] = set()
    for number, value in _values(path):
        try:
            row = _row(value, columns)
        except KeyError as error:
            names = ", ".join(shown(name) for name in list(value)[:20])
            raise UserError(
                f"{path}, line {number}: not a picture's metadata (lacks {error}; it has {names}). "
                "Other names of columns can be given in the data spec: "
                f"{', '.join(name + '=' for name in COLUMNS)}."
            ) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number}: not a picture's metadata ({error})."
            ) from error

        named = row.files
        if roots is not None:
            _check_names(named, path, number, roots)
        files.update(named)
        if not seen.issuperset(value):
            seen.update(value)
        if split is None or value.get("split", split) == split:
            rows.append(row)

    if split is not None and rows and "split" not in seen and path.parent.name != split:
        warnings.warn(
            f"no line of {path} says its split, so all are taken for {split}.", stacklevel=2
        )
    _check_hints(path, rows)
    _tell_unused(path, columns, seen, rows)
    return rows, files


def _check_names(names: Sequence[str], path: Path, line: int, roots: Sequence[Path]) -> None:
    """Names that lead out of the folder by themselves are refused here, by links when they are
    read.
    """
    for name in names:
        if (".." in name and escapes(name)) or (
            (name[0] in "/\\" or ":" in name) and os.path.isabs(name)
        ):
            try:
                inside(path.parent, name, roots)
            except UserError as error:
                raise UserError(f"{path}, line {line}: {error}") from error


def _check_hints(path: Path, rows: Sequence[Row]) -> None:
    """Every row has a hint or none has one, and likewise in each condition's own column."""
    hinted = sum(row.hint is not None for row in rows)
    if 0 < hinted < len(rows):
        lacking = next(row for row in rows if row.hint is None)
        raise UserError(
            f"{path} names a hint for {hinted} of {len(rows)} pictures; give every picture one, or "
            f"none ({shown(lacking.image)} has none)."
        )
    for name in {name for row in rows for name, _ in row.named}:
        lacking_one = next((row for row in rows if name not in dict(row.named)), None)
        if lacking_one is not None:
            raise UserError(
                f"{path} names {name} hints, but none for {shown(lacking_one.image)}; give every "
                "picture one, or take the column away."
            )


def _tell_unused(path: Path, columns: Columns, seen: set[str], rows: Sequence[Row]) -> None:
    """A note where columns are not used, which names those that may hold what is missed."""
    used = {
        name for read in (columns.image_name, columns.caption_name) if (name := _try(read, seen))
    }
    used |= {
        name
        for name in columns.conditioning_image_column
        if name in seen and rows and rows[0].hint is not None
    }
    if any(row.mask is not None for row in rows):
        used |= {columns.mask_name(dict.fromkeys(seen)) or ""}
    used |= {name for row in rows[:1] for name, _ in row.named} | (
        {"pose", "pose_image"} if rows and rows[0].pose else set()
    )
    unused = sorted(seen - used - _ASIDE)
    if unused:
        drawn = (
            ""
            if not rows or rows[0].hint is not None
            else "; there is no column of hints, so hints are drawn"
        )
        names = ", ".join(shown(name) for name in unused[:12])
        warnings.warn(f"{path} has columns that are not used: {names}{drawn}.", stacklevel=3)


def _try(read: Any, names: set[str]) -> str | None:
    try:
        return read(names)
    except KeyError:
        return None


# ---------------------------------------------------------------- lines


def _values(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, what it says) of every line that is not empty. Raises UserError."""
    if path.suffix.lower() == ".csv":
        yield from _of_csv(path)
        return
    if path.suffix.lower() == ".parquet":
        yield from parquets.lines(path)
        return
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = _JSON.decode(line)
        except (ValueError, RecursionError) as error:
            if line.lstrip().startswith("[") or line.strip() == "{":
                raise UserError(
                    f"{path}, line {number}: one JSON list or object over several lines; write an "
                    "object a line "
                    '({"file_name": "a.png", "text": "its caption"}).'
                ) from error
            raise UserError(
                f"{path}, line {number}: not a picture's metadata ({error})."
            ) from error
        if not isinstance(value, dict):
            raise UserError(
                f"{path}, line {number}: not a picture's metadata (a {type(value).__name__}, no "
                "object)."
            )
        yield number, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(name for name in names if names.count(name) > 1)!r} is there twice"
        )
    if len(fields) > _MAX_KEYS:
        raise ValueError(f"{len(fields):,} keys")
    return fields


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def _of_csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines = (f"{line}\n" for _, line in read_lines(path))
    first = next(lines, "")
    between = max(",;\t", key=first.count)  # semicolons and tabs come from spreadsheets
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
    names = next(csv.reader([first], delimiter=between), [])
    if len(set(names)) < len(names):
        raise UserError(
            f"{path}, line 1: two columns have one name: {', '.join(map(shown, names))}."
        )

    reader = csv.reader(lines, delimiter=between, strict=True)
    try:
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(names):
                raise UserError(
                    f"{path}, line {reader.line_num + 1}: {len(fields)} fields, and the first line "
                    f"names {len(names)}; put a caption that holds commas or quotes into double "
                    "quotes."
                )
            yield reader.line_num + 1, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num + 1}: not a line of CSV ({error}); is a double quote "
            "never closed?"
        ) from error


def _row(value: Mapping[str, Any], columns: Columns) -> Row:
    """Raises KeyError, TypeError and ValueError."""
    hint = columns.hint(value)
    pose = value.get("pose")
    pose = str(pose) if pose is not None and str(pose).endswith(".json") else None
    named = {
        name: _name(value[name])
        for name in value
        if name in CONDITIONS and is_picture_name(value[name])
    }
    if pose is not None:
        named.pop("pose", None)
        if value.get("pose_image"):
            named["pose"] = _name(value["pose_image"])
    image, mask = _name(columns.image(value)), columns.mask(value)
    return Row(
        image,
        columns.caption(value),
        None if hint is None else _name(hint),
        pose,
        tuple(named.items()),
        None if mask is None else _name(mask),
    )


def _name(value: Any) -> str:
    """The name of a file. Raises TypeError for what is none."""
    if not isinstance(value, str) or not is_name(value):
        raise TypeError(f"{shown(repr(value))} is no name of a file")
    return value
