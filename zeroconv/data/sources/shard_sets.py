"""Opening parquet and tar shards: in a folder, at an address, or one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from zeroconv.data.fitting import read_patiently
from zeroconv.data.reading.names import inside, shown
from zeroconv.data.reading.regular import check_regular
from zeroconv.data.reading.scan import LISTS
from zeroconv.data.reading.splits import of_split, shards_of, split_of
from zeroconv.data.remote.copies import (
    Remote,
    RemoteFolder,
    contents,
    find,
    in_parallel,
    local,
    opened,
)
from zeroconv.data.sources import parquets, tars
from zeroconv.data.sources.columns import Columns
from zeroconv.data.sources.layouts import layout_of
from zeroconv.data.sources.packed import Packed
from zeroconv.errors import UserError


def open_packed(
    folder: Path | RemoteFolder,
    condition: str | None = None,
    columns: Columns | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    roots: Sequence[Path] | None = (),
) -> Packed | None:
    """The shards of a folder, parquet or tar, and their first `limit` examples; None where there
    are none.

    They lie in it or its data/, those of one split told by their names (train-00000-of-00004), or
    as the hub converts data sets: SPLIT/ or CONFIG/SPLIT/. Without a split, train is taken.
    `roots`: see `names.inside`. Raises UserError.
    """
    for kind in ("parquet", "tar"):
        shards = shards_of(folder, kind, split, config)
        if shards and not (kind == "parquet" and _are_notes(shards, folder, split, config)):
            if isinstance(folder, Path):
                for shard in shards:
                    inside(folder, str(shard.relative_to(folder)), roots)
            return open_shards(shards, condition, columns, limit)
    return None


def _are_notes(parquets: Sequence[Any], folder: Any, split: str | None, config: str | None) -> bool:
    """Whether parquet files only describe the tars of the same names, as img2dataset writes
    them."""
    with warnings.catch_warnings():
        # the tars get their notes when they are taken
        warnings.simplefilter("ignore")
        tars = shards_of(folder, "tar", split, config)
    return bool(tars) and {stem_of(shard) for shard in parquets} <= {stem_of(tar) for tar in tars}


def stem_of(shard: Path | Remote) -> str:
    """A shard's name without its suffix."""
    return PurePosixPath(shard.name).stem


def open_remote(
    address: str,
    split: str | None = None,
    limit: int | None = None,
    condition: str | None = None,
    columns: Columns | None = None,
    config: str | None = None,
) -> Packed:
    """Shards at an address, which lists them ("https://host/train-{00000..00009}.tar") or is a
    folder of theirs.

    Raises UserError where there are none, or the store cannot be asked.
    """
    shards = read_patiently(lambda: find(address))
    if not isinstance(shards, RemoteFolder):
        chosen = (
            of_split({shard: split_of(shard.name) for shard in shards}, split, address)
            if split
            else shards
        )
        return open_shards(tuple(chosen), condition, columns, limit)
    packed = open_packed(shards, condition, columns, split, config, limit)
    if packed is None:
        raise UserError(
            f"{address} holds no parquet and no tar shards; name them, as in "
            f"https://host/train-{{00000..00009}}.tar."
        )
    return packed


def open_shards(
    shards: tuple[Path | Remote, ...],
    condition: str | None = None,
    columns: Columns | None = None,
    limit: int | None = None,
) -> Packed:
    """Shards of one kind, as they are named. Raises UserError."""
    columns = columns or Columns()
    for shard in shards:
        if isinstance(shard, Path):
            check_regular(shard)
    if shards[0].suffix.lower() == ".tar":
        return _open_tars(shards, condition, columns, limit)
    return _open_parquets(shards, condition, columns, limit)


@dataclass
class _TarRows:
    """The examples of tar shards, and what else is met in them."""

    shards: Sequence[Path | Remote]
    columns: Columns
    bare: list[str] = field(default_factory=list)  # names without a picture
    lists: list[str] = field(default_factory=list)  # of an imagefolder that was packed as it is
    notes: list[str] = field(default_factory=list)

    def of(self, number: int, table: dict[str, Any]) -> list[tuple]:
        shard = self.shards[number]
        self.notes.extend(f"{shard}: {note}" for note in table["notes"])
        listed = []
        for key, parts in table["members"]:
            places = {part: tuple(span) for part, span in parts}
            if tars.image_part(places, self.columns) is None:
                self.bare.append(f"{key} in {shard.name}, with {', '.join(list(places)[:3])}")
                files = [f"{PurePosixPath(key).name}{part}" for part in places]
                self.lists.extend(f"{shard}: {file}" for file in files if file in LISTS)
            else:
                listed.append((number, key, tuple(places.items())))
        return listed


def _open_tars(
    shards: tuple[Path | Remote, ...], condition: str | None, columns: Columns, limit: int | None
) -> Packed:
    rows = _TarRows(shards, columns)
    tables = _tables(shards, lambda shard: _remembered(shard, _members, "members"), limit)
    chosen = tuple(
        islice((row for i, table in enumerate(tables) for row in rows.of(i, table)), limit)
    )
    hints = [tars.hint_part(dict(parts), columns) is not None for _, _, parts in chosen]
    worded = sum(tars.caption_part(dict(parts), columns) is not None for _, _, parts in chosen)

    _refuse_tars(rows, chosen, hints, worded)
    for note in [*rows.notes, *_notes_of_tars(rows, chosen, hints, worded)][:8]:
        warnings.warn(f"{note}.", stacklevel=2)
    masked = columns.masks == "alpha" or any(
        tars.mask_part(dict(parts), columns) is not None for _, _, parts in chosen
    )
    return Packed(shards, chosen, condition, columns, None, any(hints), masked=masked)


def _refuse_tars(rows: _TarRows, chosen: Sequence[tuple], hints: list[bool], worded: int) -> None:
    """Raise UserError for shards that hold no examples, or none of the kind that is asked for."""
    shards, columns = rows.shards, rows.columns
    if columns.names_hints and not all(hints):
        raise UserError(
            f"{shards[0]}: {hints.count(False)} of {len(hints)} pictures have no part "
            f"{columns.conditioning_image_column[0]!r}, which the data spec names as their hint."
        )
    if not chosen and rows.bare:
        raise UserError(
            f"{shards[0]} holds no picture under the names that webdataset reads: what is behind "
            f"the first dot of a name is the kind of file ({shown(rows.bare[0])} is the first); "
            "write KEY.jpg and KEY.txt, with no dot in KEY."
        )
    if rows.lists and not worded:
        raise UserError(
            f"{rows.lists[0]} is in it: a packed folder, whose captions stand in that list; unpack "
            "it, and name the folder."
        )


def _notes_of_tars(
    rows: _TarRows, chosen: Sequence[tuple], hints: list[bool], worded: int
) -> list[str]:
    """What is passed over, and what examples lack."""
    notes = []
    if rows.bare:
        notes.append(
            f"{len(rows.bare)} names without a picture are passed over, the first is "
            f"{shown(rows.bare[0])}"
        )
    if chosen and not worded:
        notes.append(
            f"{rows.shards[0].name}: none of {len(chosen)} pictures has a caption, so no words "
            "(KEY.txt holds them)"
        )
    if 0 < worded < len(chosen):
        notes.append(
            f"{len(chosen) - worded} of {len(chosen)} pictures have no caption, so no words"
        )
    if any(hints) and not all(hints):
        notes.append(
            f"{hints.count(False)} of {len(hints)} pictures have no hint and are set aside"
        )
    if chosen and (unused := _unused_parts(chosen, rows.columns)):
        notes.append(f"parts that are not used: {', '.join(unused)}")
    return notes


def _unused_parts(rows: Sequence[tuple], columns: Columns) -> list[str]:
    """Parts of the first examples that are neither picture, hint nor caption."""
    unused: set[str] = set()
    for _, _, parts in rows[:100]:
        places = dict(parts)
        chosen = [
            choose(places, columns)
            for choose in (tars.image_part, tars.hint_part, tars.caption_part, tars.mask_part)
        ]
        unused |= {
            shown(part)
            for part in places
            if part not in chosen and part not in (".json", ".cls", ".url")
        }
    return sorted(unused)[:8]


def _open_parquets(
    shards: tuple[Path | Remote, ...], condition: str | None, columns: Columns, limit: int | None
) -> Packed:
    footers: list[dict[str, Any]] = []

    def rows(number: int, footer: dict[str, Any]) -> list[tuple]:
        columns.check([*footer["columns"]], str(shards[number]))
        footers.append(footer)
        return [
            (number, group, row)
            for group, size in enumerate(footer["groups"])
            for row in range(size)
        ]

    def look(shard: Path | Remote) -> dict[str, Any]:
        return _remembered(shard, _footer, "columns")

    tables = _tables(shards, look, limit)
    chosen = tuple(
        islice((row for number, footer in enumerate(tables) for row in rows(number, footer)), limit)
    )
    layout = layout_of(shards, footers, columns)
    masked = columns.masks == "alpha" or layout.mask is not None
    hinted = layout.hint is not None
    return Packed(shards, chosen, condition, columns, layout, hinted, masked=masked)


def _tables(
    shards: Sequence[Path | Remote], look: Callable[[Path | Remote], Any], limit: int | None
) -> Any:
    """A look at every shard in turn; with a limit only at as many as are needed."""
    every_row = limit is None and isinstance(shards[0], Remote)
    return (
        in_parallel(lambda shard: read_patiently(lambda: look(shard)), shards)
        if every_row
        else (read_patiently(partial(look, shard)) for shard in shards)
    )


def _remembered(shard: Path | Remote, read: Callable[[Any], Any], what: str) -> Any:
    return contents(shard, lambda: read(shard), what) if isinstance(shard, Remote) else read(shard)


def _members(shard: Path | Remote) -> dict[str, Any]:
    return tars.index_tar(local(shard), shard)


def _footer(shard: Path | Remote) -> dict[str, Any]:
    with opened(shard) as end:
        return parquets.read_footer(end, shard)
