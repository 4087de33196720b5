"""Folders of pictures: what a list beside them says, or shards in them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy import ndarray

from zeroconv.conditions.openpose import from_openpose
from zeroconv.data.example import Example, Source, true_in_mirror
from zeroconv.data.pictures import picture_size, read_alpha, read_hint, read_mask, read_picture
from zeroconv.data.reading.names import inside, shown
from zeroconv.data.reading.regular import check_regular
from zeroconv.data.reading.scan import LISTS, SHARDS, SUFFIXES, scan
from zeroconv.data.reading.strangers import explain, tell_unlisted
from zeroconv.data.reading.texts import read_text
from zeroconv.data.remote.copies import Remote
from zeroconv.data.sources.columns import Columns
from zeroconv.data.sources.lists import Row, read_list
from zeroconv.data.sources.parquets import is_list
from zeroconv.data.sources.shard_sets import open_packed, open_shards
from zeroconv.data.storage.signatures import signature
from zeroconv.errors import UserError

__all__ = ["SUFFIXES", "Folder", "Row", "open_folder", "read_people"]


@dataclass(frozen=True)
class Folder:
    """Pictures listed by a file beside them; read when asked for."""

    folder: Path
    rows: tuple[Row, ...]
    condition: str | None = None
    generated: bool = False
    roots: tuple[Path, ...] | None = ()  # where else its files may lie, see `names.inside`
    alpha: bool = False  # the alpha of a picture is its mask

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def hinted(self) -> bool:
        """Whether its pictures have hints of their own; all have, or none."""
        return any(row.hint is not None or row.named for row in self.rows[:1])

    @property
    def masked(self) -> bool:
        """Whether some of its pictures may have masks."""
        return self.alpha or any(row.mask is not None for row in self.rows)

    def name(self, i: int) -> str:
        return shown(self.rows[i].image)

    def key(self, i: int) -> str:
        row = self.rows[i]
        names = (row.image, row.hint, *dict(row.named).values(), row.mask)
        return json.dumps([*(self._signature(name) for name in names if name), row.text])

    def _signature(self, name: str) -> str:
        try:
            return signature(self.file(name))
        except UserError:  # said when it is read
            return "refused"

    def file(self, name: str) -> Path:
        """Where a file lies that a row names.

        Raises UserError: outside of the data set, or no ordinary file.
        """
        if self._is_plain(name):
            return self.folder / name
        path = inside(self.folder, name, self.roots)
        check_regular(path)
        return path

    def _is_plain(self, name: str) -> bool:
        """Whether one look tells that a name is an ordinary file below the folder, as nearly all
        are."""
        below = os.path.dirname(name)
        if ".." in name or os.path.isabs(name):
            return False
        if below not in self._entered:
            home = os.path.realpath(self.folder)
            self._entered[below] = os.path.realpath(os.path.join(home, below)) == os.path.normpath(
                os.path.join(home, below)
            )
        try:
            return self._entered[below] and stat.S_ISREG(
                os.lstat(os.path.join(self.folder, name)).st_mode
            )
        except (OSError, ValueError):
            return False

    @cached_property
    def _entered(self) -> dict[str, bool]:
        """Folder below ours → whether no link is on the way there."""
        return {}

    def example(self, i: int, size: int | None, condition: str | None) -> Example:
        row = self.rows[i]
        named = row.hint_of(condition)
        hint = None if named is None else read_hint(self.file(named), self.condition or condition)
        image = read_picture(self.file(row.image))
        people = None if row.pose is None else read_people(self.file(row.pose), image.size)
        mask = read_alpha(self.file(row.image)) if self.alpha else None
        if row.mask is not None:
            mask = read_mask(self.file(row.mask))
        sided = true_in_mirror(row.text)
        return Example(self.name(i), image, row.text, hint, sided, people, mask=mask)

    def shape(self, i: int) -> tuple[int, int]:
        return picture_size(self.file(self.rows[i].image))


def open_folder(
    folder: Path,
    split: str | None = None,
    limit: int | None = None,
    condition: str | None = None,
    columns: Columns | None = None,
    config: str | None = None,
    roots: tuple[Path, ...] | None = (),
) -> Source | None:
    """Read the list of a folder, None where it has none. No picture is opened.

    The list (metadata.jsonl, .csv or .parquet, prompt.json) or the shards may lie in `folder`, in
    its data/, or in a folder named by the split. `split` keeps the lines whose column `split` says
    so, and shards whose names begin with it; `config` is the part of a hub's data set where it has
    several. `roots`: where else its files may lie, see `names.inside`. A single shard may be named
    itself. A note tells what in the folder is passed over. Raises UserError.
    """
    columns = columns or Columns()
    if not os.path.exists(folder):
        raise UserError(
            f"there is no data folder {shown(folder)}; check the path in the recipe's data.train."
        )
    if not os.path.isdir(folder):
        return _one_shard(folder, condition, columns, limit)

    for home in (
        folder,
        folder / "data",
        folder / (split or "train"),
        folder / "data" / (split or "train"),
    ):
        for name in LISTS:
            if os.path.isfile(home / name) and is_list(home / name):
                path = _list(folder, home / name, roots)
                rows, files = read_list(path, columns, split, roots)
                tell_unlisted(home, path, files, follow=roots is None)
                alpha = columns.masks == "alpha"
                return Folder(home, tuple(rows[:limit]), condition, roots=roots, alpha=alpha)

    packed = open_packed(folder, condition, columns, split, config, limit, roots)
    if packed is not None:
        _tell_beside(folder, packed.shards)
    return packed


def _list(folder: Path, path: Path, roots: Sequence[Path] | None) -> Path:
    """A list's path, which may not lead out of the folder."""
    inside(folder, str(path.relative_to(folder)), roots)
    return path


def _one_shard(path: Path, condition: str | None, columns: Columns, limit: int | None) -> Source:
    if path.suffix.lower() in SHARDS:
        return open_shards((path,), condition, columns, limit)
    check_regular(path)
    raise UserError(
        f"{shown(path)} is a file{explain(path)}; name a folder with pictures and a metadata.jsonl."
    )


def _tell_beside(folder: Path, taken: Sequence[Path | Remote]) -> None:
    """What lies beside the shards of a folder; other splits are nothing to tell of."""
    from zeroconv.data.sources.shard_sets import stem_of

    contents = scan(folder)
    kind, stems = taken[0].suffix.lower(), {stem_of(shard) for shard in taken}
    others = [path for path in contents.shards if not path.lower().endswith(kind)]
    others = [path for path in others if stem_of(Path(path)) not in stems]
    parts = (
        [f"{len(contents.pictures)} pictures that lie beside the shards"]
        if contents.pictures
        else []
    )
    if others:
        parts.append(
            f"{len(others)} shards of another kind, {shown(os.path.basename(others[0]))} the first"
        )
    contents.tell(parts)


def read_people(path: Path, size: tuple[int, int]) -> tuple[ndarray, ...]:
    """The people of OpenPose's JSON in pixels of a picture of `size`. Raises UserError."""
    errors = (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    )
    try:
        people, canvas = from_openpose(json.loads(read_text(path)))
        scale = np.array([size[0] / canvas[0], size[1] / canvas[1], 1.0], np.float32)
    except errors as error:
        if isinstance(error, UserError) and str(path) in str(error):
            raise
        raise UserError(f"{path} cannot be read as OpenPose's JSON ({error}).") from error

    scaled = tuple(person * scale for person in people)
    if not all(np.isfinite(person).all() for person in scaled):
        raise UserError(f"{path} cannot be read as OpenPose's JSON (a joint is no number).")
    return scaled
