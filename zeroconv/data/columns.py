"""Which column of a list holds what: picture, hint, caption. A data spec may name them as diffusers' scripts do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from zeroconv.errors import UserError


@dataclass(frozen=True)
class Columns:
    """Names of columns, the first that is there counts. The defaults are what people write without being asked."""

    image_column: tuple[str, ...] = ("file_name", "image", "target", "jpg", "png")
    conditioning_image_column: tuple[str, ...] = (
        "conditioning_image",
        "conditioning_image_file_name",
        "hint",
        "hint_file_name",
        "source",
    )
    caption_column: tuple[str, ...] = ("text", "caption", "prompt", "txt")

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Columns:
        """Those that a spec's options name, the usual ones for the rest."""
        return cls(**{name: (options[name],) for name in COLUMNS if name in options})

    def image(self, row: Mapping[str, Any]) -> Any:
        """Raises KeyError."""
        return row[self._of("image_column", row)]

    def caption(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """One or several. Raises KeyError, or TypeError for something else than text."""
        return captions(row[self._of("caption_column", row)])

    def hint(self, row: Mapping[str, Any]) -> Any:
        """None where there is none. Raises KeyError where the spec names a column that is not there."""
        if self.conditioning_image_column == Columns().conditioning_image_column:
            return next((row[name] for name in self.conditioning_image_column if row.get(name)), None)
        return row[self._of("conditioning_image_column", row)]

    def check(self, names: Sequence[str], where: str) -> None:
        """Raises UserError where picture, caption or a hint that was asked for is not among the columns."""
        row = dict.fromkeys(names, "")
        for read in (self.image, self.caption, self.hint):
            try:
                read(row)
            except KeyError as error:
                raise UserError(
                    f"{where} has no column {error}; it has {', '.join(names)}. Name it in the data spec: "
                    f"{', '.join(name + '=' for name in COLUMNS)}."
                ) from error

    def _of(self, kind: str, row: Mapping[str, Any]) -> str:
        names = getattr(self, kind)
        for name in names:
            if name in row:
                return name
        raise KeyError(names[0])


USUAL = Columns()
COLUMNS = tuple(field.name for field in fields(Columns))


def captions(value: Any) -> tuple[str, ...]:
    """A caption or a list of them. Raises TypeError."""
    several = (value,) if isinstance(value, str) else tuple(value)
    if not several or not all(isinstance(caption, str) for caption in several):
        raise TypeError("a caption must be text, or a list of texts")
    return several
