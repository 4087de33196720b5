"""Which columns of parquet shards hold picture, hint and caption: the same in all of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zeroconv.data.reading.names import shown
from zeroconv.data.sources.columns import Columns
from zeroconv.errors import UserError

# what was always read; rows that are read by a newer name have another key, so caches make them
# anew
FIRST_NAMES = {
    *("image", "file_name", "target", "jpg", "png", "text", "caption", "prompt", "txt"),
    *("conditioning_image", "conditioning_image_file_name", "hint", "hint_file_name", "source"),
}


@dataclass(frozen=True)
class Layout:
    """Which columns of parquet shards are read, the same in all of them."""

    image: str
    caption: str
    hint: str | None
    structured: bool = False  # captions are objects or lists of them
    mask: str | None = None

    @property
    def news(self) -> str:
        """What of it was not read in this way before; "" for nothing."""
        new = [
            name
            for name in (self.image, self.caption, self.hint)
            if name and name not in FIRST_NAMES
        ]
        masks = [] if self.mask is None else [f"mask {self.mask}"]
        return " ".join([*new, *["objects"] * self.structured, *masks])


def layout_of(
    shards: Sequence[object], footers: Sequence[dict[str, Any]], columns: Columns
) -> Layout:
    """The columns that all shards share. Raises UserError where one has hints and another has
    none.
    """
    layouts = [_layout(footer, columns) for footer in footers]
    for shard, layout, footer in zip(shards, layouts, footers, strict=False):
        if footer["columns"][layout.image] != "picture":
            raise UserError(
                f"the column {layout.image} of {shard} holds paths or addresses of pictures, not "
                "the pictures; write their bytes into it, or name the column that has them with "
                "image_column= in the data spec."
            )
    first = layouts[0]
    for shard, layout in zip(shards, layouts, strict=False):
        read = (layout.image, layout.caption, layout.hint)
        if read != (first.image, first.caption, first.hint) or layout.mask != first.mask:
            raise UserError(
                f"{shards[0]} and {shard} differ: one is read by the columns {first.image}, "
                f"{first.caption} and {first.hint or 'no hint'}{_masked(first)}, the other by "
                f"{layout.image}, {layout.caption} and {layout.hint or 'no hint'}"
                f"{_masked(layout)}; name the columns in the data spec, or use them one by one."
            )

    _tell_unused(shards[0], footers[0], first, columns)
    structured = any(layout.structured for layout in layouts)
    return Layout(
        first.image,
        first.caption,
        first.hint,
        structured,
        first.mask,
    )


def _masked(layout: Layout) -> str:
    return "" if layout.mask is None else f" and {layout.mask}"


def _tell_unused(shard: object, footer: dict[str, Any], layout: Layout, columns: Columns) -> None:
    """A note on columns that are not used, the more so where they may be hints."""
    kinds = footer["columns"]
    used = {layout.image, layout.caption, layout.hint, layout.mask}
    unused = [shown(name) for name in kinds if name not in used]
    pictures = [name for name in unused if kinds.get(name) == "picture"]
    blank = [shown(name) for name in footer["empty"] if name in columns.conditioning_image_column]
    if layout.hint is None and blank:
        warnings.warn(
            f"{shard}: the column {blank[0]} is null throughout, so hints are drawn.",
            stacklevel=3,
        )
    elif layout.hint is None and pictures:
        warnings.warn(
            f"{shard} has pictures in {', '.join(pictures)}, which are not used: hints will be "
            "drawn. If they are the hints, say so with ?conditioning_image_column= in the data "
            "spec.",
            stacklevel=3,
        )
    elif unused:
        warnings.warn(
            f"{shard} has columns that are not used: {', '.join(unused[:12])}.", stacklevel=3
        )


def _layout(footer: dict[str, Any], columns: Columns) -> Layout:
    kinds, empty = footer["columns"], footer["empty"]
    pictures = [name for name, kind in kinds.items() if kind == "picture"]
    words = [name for name, kind in kinds.items() if kind in ("text", "texts", "objects")]

    # a column of names ("file_name") may stand beside the pictures themselves
    image = next(
        (
            columns.image_name(names)
            for names in (pictures, kinds)
            if _has(columns.image_column, names)
        ),
        None,
    )
    caption = next(
        (columns.caption_name(n) for n in (words, kinds) if _has(columns.caption_column, n)), None
    )
    assert image is not None and caption is not None  # `check` saw to that

    probe = {name: b"\0" if name in pictures else "text" for name in kinds if name not in empty}
    hint = columns.hint_name(kinds if columns.names_hints else probe)
    mask = columns.mask_name(dict.fromkeys(kinds if columns.names_masks else pictures))
    return Layout(image, caption, hint, kinds[caption] == "objects", mask)


def _has(known: Iterable[str], names: Iterable[str]) -> bool:
    return not {*known}.isdisjoint(names)
