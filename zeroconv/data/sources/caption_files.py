"""The captions of pictures in text files beside them."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from zeroconv.data.reading.names import inside, shown
from zeroconv.data.reading.scan import CAPTIONS, Scan
from zeroconv.data.reading.texts import check_caption, read_text
from zeroconv.data.sources.columns import USUAL, captions
from zeroconv.errors import UserError


class CaptionFiles:
    """The text files beside the pictures of a folder, found by name whatever the case and way of
    writing accents.
    """

    def __init__(self, contents: Scan, roots: Sequence[Path] | None) -> None:
        self.folder, self.roots = contents.folder, roots
        self._exact = {path: Path(path) for path in (*contents.captions, *contents.records)}
        self._alike: dict[str, Path] = {}
        for path in self._exact.values():
            self._alike.setdefault(same_name(str(path)), path)
        self._texts = [Path(path) for path in contents.captions]
        # what belongs to a picture is not told
        stems = {os.path.splitext(path)[0] for path in contents.pictures}
        self._records = [Path(p) for p in contents.records if os.path.splitext(p)[0] not in stems]
        self._used: set[Path] = set()

    def file(self, picture: Path) -> Path | None:
        """The file with a picture's captions: a.png.txt before a.txt, text before .json; None where
        there is none.
        """
        full_name, stem = str(picture), str(picture.with_suffix(""))
        names = [f"{start}{suffix}" for start in (full_name, stem) for suffix in CAPTIONS] + [
            f"{full_name}.json",
            f"{stem}.json",
        ]
        candidates = [self._exact.get(name) or self._alike.get(same_name(name)) for name in names]
        paths = [path for path in candidates if path is not None and self._is_caption(path)]
        # an empty text stands back where another one has words
        return next(
            (path for path in paths if path.stat().st_size > 0), paths[0] if paths else None
        )

    def _is_caption(self, path: Path) -> bool:
        """Whether a file holds captions; a .json may hold joints, or settings."""
        if path.suffix.lower() != ".json":
            return True
        inside(self.folder, str(path.relative_to(self.folder)), self.roots)
        return _holds_caption(path)

    def of(self, picture: Path) -> tuple[str, ...]:
        """A picture's captions, one a line; () where it has no file, or an empty one. Raises
        UserError.
        """
        path = self.file(picture)
        if path is None:
            return ()
        self._used.add(path)
        inside(self.folder, str(path.relative_to(self.folder)), self.roots)
        try:
            if path.suffix.lower() == ".json":
                return USUAL.caption(json.loads(read_text(path)))
            lines = [check_caption(line.strip()) for line in read_text(path).splitlines()]
            texts = tuple(line for line in lines if line)
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"the captions {shown(path)} cannot be read ({error}).") from error
        return captions(list(texts)) if texts else ()

    def unused(self, limit: int | None) -> list[str]:
        """A sentence on text files that belong to no picture; with a limit nobody knows."""
        if limit is not None:
            return []
        parts = []
        for what, paths in (
            ("texts that belong to no picture or to one that has another", self._texts),
            (".json files that are no captions", self._records),
        ):
            left = [path for path in paths if path not in self._used]
            if left:
                first = shown(left[0].relative_to(self.folder))
                parts.append(f"{len(left)} {what}, {first} the first")
        return parts


def same_name(name: str) -> str:
    """Equal for names that differ in case, or in the way of writing accents, alone."""
    return unicodedata.normalize("NFC", name).casefold()


def _holds_caption(path: Path) -> bool:
    """Whether a .json beside a picture holds a caption: it may hold joints, or settings."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and any(name in value for name in USUAL.caption_column)
