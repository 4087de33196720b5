"""Folders without a list, as kohya's trainer reads them: captions in text files beside the pictures, hints in a second
folder under the same names, and subfolders such as `10_cats` whose pictures are taken ten times a pass."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from zeroconv.data.folders import SUFFIXES, Folder, Row
from zeroconv.errors import UserError

CAPTIONS = (".txt", ".caption")
_REPEATED = re.compile(r"(\d+)_(.+)")


def open_pairs(
    folder: Path, hints: Path | None = None, limit: int | None = None, condition: str | None = None
) -> list[tuple[Folder, int]]:
    """The pictures of a folder and of its subfolders, with how often each is taken a pass.

    A caption file (`.txt`, `.caption`) holds a caption a line; a picture without one has the name of its `N_name`
    folder, or else no words. `hints`: a folder with a picture of the same name, whatever its suffix, for every
    picture, in the same subfolders or in none; a path that is not there is looked for in `folder`. No picture is
    opened. Raises UserError where there are no pictures, where nothing says what they show, or a hint is missing.
    """
    if hints is not None and not hints.is_dir():
        hints = folder / hints
        if not hints.is_dir():
            raise UserError(f"there is no folder of hints {hints}; check hints= in the data spec of {folder}.")
    found = [path for path in pictures_in(folder) if hints is None or hints.resolve() not in path.resolve().parents]
    if not found:
        raise UserError(
            f"the folder {folder} has no metadata.jsonl and holds no pictures ({', '.join(sorted(SUFFIXES))})."
        )
    if hints is None and not any(_caption_file(path) or _repeats(path, folder)[1] for path in found):
        raise UserError(
            f"{folder} has no metadata.jsonl; write one with a line a picture: "
            '{"file_name": "a.png", "text": "its caption"}, and "conditioning_image": "b.png" where there is a hint; '
            "or put the caption of a.png into a.txt beside it."
        )
    given = None if hints is None else _hints_of(found, folder, hints)
    rows: dict[int, list[Row]] = {}
    for path in found[:limit]:
        times, name = _repeats(path, folder)
        hint = None if given is None else given[path]
        rows.setdefault(times, []).append(Row(str(path.relative_to(folder)), captions_of(path, name), hint))
    return [(Folder(folder, tuple(some), condition), times) for times, some in sorted(rows.items())]


def pictures_in(folder: Path) -> list[Path]:
    """Every picture below a folder, in the order of their names; hidden files are left out."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def captions_of(path: Path, otherwise: str = "") -> tuple[str, ...]:
    """The lines of the caption file beside a picture, else `otherwise`. Raises UserError if it is no UTF-8."""
    file = _caption_file(path)
    if file is None:
        return (otherwise,)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the captions {file} cannot be read ({error}); save the file as UTF-8.") from error
    return tuple(line for line in lines if line) or (otherwise,)


def _caption_file(path: Path) -> Path | None:
    return next((file for suffix in CAPTIONS if (file := path.with_suffix(suffix)).is_file()), None)


def _repeats(path: Path, folder: Path) -> tuple[int, str]:
    """How often, and what is shown: (10, "cats") for anything in a subfolder 10_cats, (1, "") elsewhere."""
    top = path.relative_to(folder).parts[0]
    match = _REPEATED.fullmatch(top) if (folder / top).is_dir() else None
    if match is None:
        return 1, ""
    if int(match[1]) < 1:
        raise UserError(f"the pictures in {folder / top} would be taken 0 times; rename the folder, or take it away.")
    return int(match[1]), match[2].replace("_", " ")


def _hints_of(found: Iterable[Path], folder: Path, hints: Path) -> dict[Path, str]:
    """Picture → its hint: the same path without suffix below `hints`, or the same bare name right in it."""
    below = {path.relative_to(hints).with_suffix(""): path for path in pictures_in(hints)}
    taken: dict[Path, Path] = {}
    given: dict[Path, str] = {}
    missing = []
    for path in found:
        place = path.relative_to(folder).with_suffix("")
        hint = below.get(place, below.get(Path(place.name)))
        if hint is None:
            missing.append(place)
        elif hint in taken:
            raise UserError(
                f"{taken[hint]} and {path} would both get the hint {hint}; lay the hints in the same subfolders."
            )
        else:
            taken[hint] = path
            given[path] = str(hint.resolve())
    if missing:
        raise UserError(f"{len(missing)} pictures of {folder} have no hint in {hints}, {missing[0]} the first.")
    return given
