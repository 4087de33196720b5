"""Folders without a list, as kohya's trainer reads them: captions in text files beside the
pictures, hints in a second folder under the same names, and subfolders such as `10_cats` whose
pictures are taken ten times a pass.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from zeroconv.data.reading.names import shown
from zeroconv.data.reading.scan import Scan, scan
from zeroconv.data.reading.strangers import OFTEN, REPEATED, refuse, tell_subfolders
from zeroconv.data.reading.texts import check_caption
from zeroconv.data.sources.caption_files import CaptionFiles, same_name
from zeroconv.data.sources.imagefolder import Folder, Row
from zeroconv.errors import UserError


def open_pairs(
    folder: Path,
    hints: Path | None = None,
    limit: int | None = None,
    condition: str | None = None,
    roots: tuple[Path, ...] | None = (),
    wordless: bool = False,
    masks: Path | None = None,
    alpha: bool = False,
) -> list[tuple[Folder, int]]:
    """The pictures of a folder and of its subfolders, with how often each is taken a pass.

    The captions of a.png stand in a.txt, a.caption, a.png.txt or a.json, whatever the case of the
    suffix; a picture without one has the name of its `N_name` folder, or else no words. `hints`: a
    folder with a picture of the same name, whatever its suffix, for every picture, in the same
    subfolders or in none; a path that is not there is looked for in `folder`. `masks`: the same of
    masks, which some pictures may lack; `alpha`: the alpha of a picture is its mask. `roots`: see
    `names.inside`; `wordless`: a folder without any caption will do. No picture is opened. A note
    tells what is passed over. Raises UserError where there are no pictures, where nothing says what
    they show, a hint is missing, or no picture has a mask.
    """
    hints = None if hints is None else _folder_of("hints", hints, folder)
    masks = None if masks is None else _folder_of("masks", masks, folder)
    beneath = [path for path in (hints, masks) if path is not None]
    contents = scan(folder, links=roots is None, without=beneath)
    pictures = [Path(path) for path in contents.pictures]
    if not pictures:
        raise refuse(folder, contents)
    beside = CaptionFiles(contents, roots)
    if (
        hints is None
        and not wordless
        and not any(_worded(path, folder, beside) for path in pictures)
    ):
        raise _without_words(folder, contents)

    given = {} if hints is None else _beside("hint", pictures, folder, hints, roots)
    masking = {} if masks is None else _beside("mask", pictures, folder, masks, roots)
    rows: dict[int, list[Row]] = {}
    for path in pictures[:limit]:
        times, name = _repeats(path, folder)
        text = beside.of(path) or (name,)
        row = Row(str(path.relative_to(folder)), text, given.get(path), mask=masking.get(path))
        rows.setdefault(times, []).append(row)

    contents.tell(beside.unused(limit))
    _tell_repeated(folder, rows)
    tell_subfolders(folder, [path.relative_to(folder).parts for path in pictures])
    _tell_wordless(folder, [row for some in rows.values() for row in some], hints)
    places = None if roots is None else (*roots, *beneath)
    return [
        (Folder(folder, tuple(some), condition, roots=places, alpha=alpha), times)
        for times, some in sorted(rows.items())
    ]


def _folder_of(what: str, given: Path, folder: Path) -> Path:
    """As it is, or below `folder`. Raises UserError where neither is there."""
    if os.path.isdir(given):
        return given
    if os.path.isdir(folder / given):
        return folder / given
    raise UserError(
        f"there is no folder of {what} {folder / given}; check {what}= in the data spec of "
        f"{folder}."
    )


def _tell_repeated(folder: Path, rows: dict[int, list[Row]]) -> None:
    """A note where a folder's name asks for a number of repeats that may be none. `rows`: by how
    often they are taken.
    """
    often = [
        f"{times} times ({some[0].image})" for times, some in sorted(rows.items()) if times > OFTEN
    ]
    if often:
        warnings.warn(
            f"{shown(folder)}: pictures are taken {shown(often[-1])} a pass, as the name of their "
            "folder says to kohya's trainer; rename the folder if its number means something else.",
            stacklevel=3,
        )


def _tell_wordless(folder: Path, rows: list[Row], hints: Path | None) -> None:
    """A note on pictures without a caption among others that have one."""
    bare = [row.image for row in rows if row.text == ("",)]
    if not 0 < len(bare) < len(rows):
        return

    tops = {Path(name).parts[0] for name in bare if hints is None}
    top = tops.pop() if len(tops) == 1 else ""
    option = f"; if {shown(top)} holds hints, say ?hints={shown(top)}"
    meant = option if top and (folder / top).is_dir() else ""
    warnings.warn(
        f"{len(bare)} pictures in {shown(folder)} have no caption, so no words, "
        f"{shown(bare[0])} the first{meant}.",
        stacklevel=3,
    )


def _worded(path: Path, folder: Path, beside: CaptionFiles) -> bool:
    return beside.file(path) is not None or bool(_repeats(path, folder)[1])


def _without_words(folder: Path, contents: Scan) -> UserError:
    if contents.lists:
        return refuse(folder, contents)
    other = shown(os.path.relpath(contents.records[0], folder)) if contents.records else ""
    there = f" ({other} is no list by its name, and holds no caption of a picture)" if other else ""
    return UserError(
        f"{folder} has no metadata.jsonl{there}; write one with a line a picture: "
        '{"file_name": "a.png", "text": "its caption"}, and "conditioning_image": "b.png" where '
        "there is a hint; "
        "or put the caption of a.png into a.txt beside it."
    )


def _repeats(path: Path, folder: Path) -> tuple[int, str]:
    """How often, and what is shown: (10, "cats") for anything in a subfolder 10_cats, (1, "")
    elsewhere.
    """
    parts = path.relative_to(folder).parts
    match = REPEATED.fullmatch(parts[0]) if len(parts) > 1 else None
    if match is None:
        return 1, ""
    if not 1 <= int(match[1]) <= 10_000:
        raise UserError(
            f"the pictures in {shown(folder / parts[0])} would be taken {int(match[1])} times; "
            "rename the folder (1 to 10,000), or take it away."
        )
    return int(match[1]), check_caption(shown(match[2].replace("_", " ")))


def _beside(
    what: str,
    pictures: Iterable[Path],
    folder: Path,
    hints: Path,
    roots: Sequence[Path] | None,
) -> dict[Path, str]:
    """Picture → its hint, or its mask: the same path without suffix below `hints`, or the same bare
    name right in it. Only a mask may be missing, of some pictures.
    """
    there = scan(hints, links=roots is None)
    below: dict[str, Path] = {}
    hinting = [Path(path) for path in there.pictures]
    for path in hinting:
        stem = same_name(str(path.relative_to(hints).with_suffix("")))
        if stem in below:
            raise UserError(
                f"{shown(below[stem])} and {shown(path)} are {what}s for one picture; take one "
                "away."
            )
        below[stem] = path

    taken: dict[Path, Path] = {}
    given: dict[Path, str] = {}
    missing = []
    for path in pictures:
        relative = path.relative_to(folder).with_suffix("")
        hint = below.get(same_name(str(relative)), below.get(same_name(relative.name)))
        if hint is None:
            missing.append(relative)
        elif hint in taken:
            raise UserError(
                f"{shown(taken[hint])} and {shown(path)} would both get the {what} {shown(hint)}; "
                f"lay the {what}s in the same subfolders, and give two pictures two names."
            )
        else:
            taken[hint] = path
            given[path] = str(hint.resolve())
    if missing and (what == "hint" or not taken):
        raise UserError(
            f"{len(missing)} pictures of {folder} have no {what} in {hints}, {shown(missing[0])} "
            "the first."
        )
    left = [path for path in hinting if path not in taken]
    there.tell(
        [f"{len(left)} {what}s without a picture, {shown(left[0].relative_to(hints))} the first"]
        if left
        else []
    )
    return given
