"""Which column of a list holds what: picture, hint, caption. A data spec may name them as
diffusers' scripts do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any, Literal

from zeroconv.data.reading.scan import SUFFIXES
from zeroconv.data.reading.texts import check_caption, decode
from zeroconv.errors import UserError

# names that also stand for other things: they hold a picture where their value is one ("a.png",
# bytes)
_AMBIGUOUS = {"source", "control", "condition", "conditioning", "hint"}
_CAPTIONS = (
    "raw",
    "text",
    "caption",
    "prompt",
    "string",
    "value",
)  # keys of a caption that is an object
MAX_CAPTIONS = 1000  # of one picture
# where masks of the loss come from: a picture of their own, or the alpha of the picture
Masks = Literal["mask", "alpha"]


@dataclass(frozen=True)
class Columns:
    """Names of columns, the first that is there counts. The defaults are what people and their
    tools write.
    """

    image_column: tuple[str, ...] = (
        "file_name", "image", "target", "jpg", "png",
        "image_file_name", "image_path", "image_file", "filename", "img", "jpeg", "webp",
    )  # fmt: skip
    conditioning_image_column: tuple[str, ...] = (
        "conditioning_image",
        "conditioning_image_file_name",
        "hint",
        "hint_file_name",
        "source",
        "control_image",
        "control_image_file_name",
        "condition_image",
        "condition_image_file_name",
        "conditioning_image_path",
        "control_image_path",
        "condition_image_path",
        "cond_image",
        "hint_image",
        "hint_image_file_name",
        "hint_path",
        "conditioning",
        "control",
        "condition",
    )
    caption_column: tuple[str, ...] = (
        "text", "caption", "prompt", "txt", "captions", "prompts", "description", "image_caption",
    )  # fmt: skip

    # not shown, so that the keys of examples without masks stay as they are
    mask_column: tuple[str, ...] = field(
        default=(
            "mask", "mask_file_name", "mask_image", "mask_image_file_name", "mask_path",
            "loss_mask", "loss_mask_file_name",
        ),
        repr=False,
    )  # fmt: skip
    masks: Masks | None = field(default=None, repr=False)  # None: masks are not read

    @classmethod
    def of(cls, options: Mapping[str, str], masks: Masks | None = None) -> Columns:
        """Those that a spec's options name, the usual ones for the rest."""
        named = {name: (options[name],) for name in COLUMNS if name in options}
        return cls(**named, masks=masks)  # type: ignore[arg-type]

    def image_name(self, names: Iterable[str]) -> str:
        """The column of pictures. Raises KeyError."""
        return self._of("image_column", names)

    def caption_name(self, names: Iterable[str]) -> str:
        """The column of captions. Raises KeyError."""
        return self._of("caption_column", names)

    def hint_name(self, row: Mapping[str, Any]) -> str | None:
        """The column of hints: the first name that is there and holds, or may hold, a picture.

        None where there is none. Raises KeyError where the spec names a column that is not there.
        """
        if self.names_hints:
            return self._of("conditioning_image_column", row)
        for name in self.conditioning_image_column:
            if name in row and _may_be(name, row[name]):
                return name
        return None

    def mask_name(self, row: Mapping[str, Any]) -> str | None:
        """The column of masks; None where there is none, or masks are not asked for. Raises
        KeyError where the spec names a column that is not there.
        """
        if self.masks != "mask":
            return None
        if self.names_masks:
            return self._of("mask_column", row)
        return next((name for name in self.mask_column if name in row), None)

    @property
    def names_masks(self) -> bool:
        """Whether the spec itself says which column holds the masks."""
        return self.mask_column != Columns().mask_column

    def mask(self, row: Mapping[str, Any]) -> Any:
        """None where there is none. Raises KeyError as `mask_name`."""
        name = self.mask_name(row)
        return None if name is None or row[name] in (None, "") else row[name]

    @property
    def names_hints(self) -> bool:
        """Whether the spec itself says which column holds the hints."""
        return self.conditioning_image_column != Columns.conditioning_image_column

    def image(self, row: Mapping[str, Any]) -> Any:
        """Raises KeyError."""
        return row[self.image_name(row)]

    def caption(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """One or several. Raises KeyError; TypeError or ValueError for what is no caption."""
        return captions(row[self.caption_name(row)])

    def hint(self, row: Mapping[str, Any]) -> Any:
        """None where there is none. Raises KeyError where the spec names a column that is not
        there.
        """
        name = self.hint_name(row)
        return None if name is None or row[name] in (None, "") else row[name]

    def check(self, names: Sequence[str], where: str) -> None:
        """Raises UserError where picture, caption or a hint that was asked for is not among the
        columns.
        """
        row = dict.fromkeys(names)
        for read in (self.image_name, self.caption_name, self.hint_name, self.mask_name):
            try:
                read(row)
            except KeyError as error:
                raise UserError(
                    f"{where} has no column {error}; it has {', '.join(map(str, names))}. Name it "
                    f"in the data spec: {', '.join(name + '=' for name in COLUMNS)}."
                ) from error

    def _of(self, kind: str, names: Iterable[str]) -> str:
        known = getattr(self, kind)
        there = names if isinstance(names, Mapping) else set(names)
        for name in known:
            if name in there:
                return name
        raise KeyError(known[0])


USUAL = Columns()
COLUMNS = tuple(column.name for column in fields(Columns) if column.name != "masks")


def _may_be(name: str, value: Any) -> bool:
    """Whether a column of hints holds a picture, or a name of one, or nothing."""
    if name not in _AMBIGUOUS or value in (None, ""):
        return True
    return not isinstance(value, str) or is_picture_name(value)


def is_picture_name(value: object) -> bool:
    """ "a.png": whether a text names a picture."""
    return isinstance(value, str) and PurePath(value.replace("\\", "/")).suffix.lower() in SUFFIXES


def captions(value: Any) -> tuple[str, ...]:
    """A caption or several: text, `{"raw": text}` as some sets have it, or a list of either.

    Raises TypeError for what is none of these, ValueError for text that cannot be used.
    """
    if isinstance(value, str):
        return (check_caption(value),)
    several = _flat(value)
    if not several:
        raise TypeError("the list of captions is empty")
    if len(several) > MAX_CAPTIONS:
        raise ValueError(f"{len(several):,} captions, at most {MAX_CAPTIONS:,} are read")
    return tuple(check_caption(caption) for caption in several)


def _flat(value: Any, depth: int = 0) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, bytes):
        return [decode(value, "the caption")]
    if value is None:
        raise TypeError('the caption is null; write "" for a picture without words')
    if isinstance(value, Mapping) and depth < 3:
        for name in _CAPTIONS:
            if name in value:
                return _flat(value[name], depth + 1)
        raise TypeError(
            f"the caption is an object with {', '.join(map(str, value))}; it needs one of "
            f"{_CAPTIONS[0]}, {', '.join(_CAPTIONS[1:])}"
        )
    if isinstance(value, list | tuple) and depth < 3:
        return [caption for one in value for caption in _flat(one, depth + 1)]
    raise TypeError(f"a caption must be text, or a list of texts, not {type(value).__name__}")
