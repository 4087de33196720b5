"""Training sets in few large files: parquet as the `datasets` library lays it out, tar as
webdataset does.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from zeroconv.data.example import Example, true_in_mirror
from zeroconv.data.fitting import BrokenExample, StorageError, read_patiently
from zeroconv.data.pictures import picture_size, read_alpha, read_hint, read_mask, read_picture
from zeroconv.data.reading.names import shown
from zeroconv.data.remote.copies import Remote, contents, local
from zeroconv.data.sources import parquets, tars
from zeroconv.data.sources.columns import USUAL, Columns, captions
from zeroconv.data.sources.layouts import Layout
from zeroconv.data.storage.signatures import signature
from zeroconv.errors import UserError

# parts of a tar that were always read; rows that are read by a newer name have another key
_FIRST_PARTS = {
    *(".txt", ".caption", ".png", ".jpg", ".jpeg", ".webp"),
    *(
        f".{name}{suffix}"
        for name in ("hint", "conditioning_image")
        for suffix in (".png", ".jpg", ".jpeg", ".webp")
    ),
}


# picture, hint, captions, mask
Read = tuple[bytes, bytes | None, tuple[str, ...], bytes | None]


@dataclass(frozen=True)
class Packed:
    """Examples in shards, read one at a time where they lie (remote ones in a copy); nothing is
    unpacked.
    """

    shards: tuple[Path | Remote, ...]
    # tar: (shard, key, {part: (offset, size)} as pairs); parquet: (shard, row group, row)
    rows: tuple[tuple, ...]
    condition: str | None = None
    columns: Columns = USUAL
    layout: Layout | None = None  # of parquet
    hinted: bool = False  # some rows have hints, so every one needs one
    generated: bool = False
    masked: bool = False  # some rows have masks, or may have alpha

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        shard, *position = self.rows[i]
        return f"{self.shards[shard].name}:{shown(position[0])}" + (
            f".{position[1]}" if isinstance(position[1], int) else ""
        )

    def label(self, i: int) -> str:
        """Shard and place in it, without suffix."""
        shard, first, second = self.rows[i]
        stem = PurePosixPath(self.shards[shard].name).stem
        return f"{stem}/{first:04d}-{second:06d}" if isinstance(second, int) else f"{stem}/{first}"

    def key(self, i: int) -> str:
        # which of its columns: captions, hints, pictures
        read = "" if self.columns == USUAL else f" {self.columns}"
        return f"{self._signatures[self.rows[i][0]]} {self.rows[i][1:]}{read}{self._news(i)}"

    def _news(self, i: int) -> str:
        if self.layout is not None:
            return f" {self.layout.news}" if self.layout.news else ""
        parts = dict(self.rows[i][2])
        chosen = [
            choose(parts, self.columns)
            for choose in (tars.image_part, tars.hint_part, tars.caption_part, tars.mask_part)
        ]
        new = [part for part in chosen if part and part not in _FIRST_PARTS]
        return "".join(
            f" {part}" for part in [*new, *["no hint"] * (self.hinted and chosen[1] is None)]
        )

    @cached_property
    def _signatures(self) -> list[str]:
        return [
            signature(shard) if isinstance(shard, Path) else shard.mark for shard in self.shards
        ]

    def example(self, i: int, size: int | None, condition: str | None) -> Example:
        image, hint, text, masking = self._read(i)
        name = self.name(i)
        drawn = (
            None
            if hint is None
            else read_hint(io.BytesIO(hint), self.condition or condition, f"the hint of {name}")
        )
        mask = None
        if masking is not None:
            mask = read_mask(io.BytesIO(masking), f"the mask of {name}")
        elif self.columns.masks == "alpha":
            mask = read_alpha(io.BytesIO(image), name)
        picture = read_picture(io.BytesIO(image), name)
        return Example(name, picture, text, drawn, true_in_mirror(text), mask=mask)

    def shape(self, i: int) -> tuple[int, int]:
        number, name = self.rows[i][0], self.name(i)
        if isinstance(self.shards[number], Remote):
            if number not in self._shapes:
                self._shapes[number] = self._remembered_shapes(number)
            if name in self._shapes[number]:
                return self._shapes[number][name]
        return picture_size(io.BytesIO(self._read(i)[0]), name)

    @cached_property
    def _shapes(self) -> dict[int, dict[str, tuple[int, int]]]:
        return {}

    def _remembered_shapes(self, number: int) -> dict[str, tuple[int, int]]:
        """Width and height of a remote shard's whole pictures: shapes are asked for at every start,
        which would copy it each time.
        """

        def look(i: int) -> tuple[int, int]:
            return picture_size(io.BytesIO(self._read(i)[0]), self.name(i))

        def read() -> dict[str, tuple[int, int]]:
            shapes = {}
            for i, row in enumerate(self.rows):
                if row[0] == number:
                    with suppress(BrokenExample):
                        shapes[self.name(i)] = read_patiently(partial(look, i))
            return shapes

        shard = self.shards[number]
        assert isinstance(shard, Remote)
        return {
            name: (w, h) for name, (w, h) in contents(shard, read, f"shapes {self.columns}").items()
        }

    def _read(self, i: int) -> Read:
        """Picture, hint, captions and mask of a row. Raises UserError for a row that holds
        something else, or is damaged.
        """
        try:
            image, hint, text, mask = self._taken(i)
        except StorageError:
            raise
        except (
            KeyError,
            TypeError,
            ValueError,
            OSError,
            NotImplementedError,
            OverflowError,
            MemoryError,
        ) as error:  # pyarrow's errors are of these
            raise UserError(f"{self.name(i)} cannot be read ({error}).") from error
        if hint is None and self.hinted:
            raise UserError(
                f"{self.name(i)} has no hint, and others of its set have; give every picture one, "
                "or none."
            )
        return image, hint, text, mask

    def _taken(self, i: int) -> Read:
        number, *position = self.rows[i]
        path = local(self.shards[number])
        if self.layout is None:
            return self._from_tar(path, dict(position[1]), self.name(i))

        layout = self.layout
        wanted = (layout.image, layout.caption, layout.hint, layout.mask)
        names = tuple(name for name in wanted if name)
        with parquets.in_one_sentence(self.name(i)):
            line = parquets.row_group(path, position[0], names).slice(position[1], 1).to_pylist()[0]
        hint = None if layout.hint is None else line[layout.hint]
        mask = None if layout.mask is None else line[layout.mask]
        given = [None if cell is None else _content(cell) for cell in (hint, mask)]
        text = captions(line[layout.caption])
        return _content(line[layout.image]), given[0], text, given[1]

    def _from_tar(self, path: Path, parts: dict[str, tuple[int, int]], name: str) -> Read:
        image, hint = tars.image_part(parts, self.columns), tars.hint_part(parts, self.columns)
        assert image is not None
        text = tars.read_captions(path, parts, self.columns, name)
        mask = tars.mask_part(parts, self.columns)
        given = [
            None if part is None else tars.read_part(path, parts[part], name)
            for part in (hint, mask)
        ]
        return tars.read_part(path, parts[image], name), given[0], text, given[1]


def _content(cell: Any) -> bytes:
    """The bytes of a picture's cell: the `datasets` library keeps them in a struct. Raises
    UserError.
    """
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if cell is None:
        raise UserError("the picture is null")
    if not isinstance(content, bytes):
        raise UserError("the parquet file holds paths or addresses of pictures, not the pictures.")
    return content
