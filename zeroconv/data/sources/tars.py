"""Tar shards as webdataset writes them, read where they lie, with limits on everything that a
header may claim.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zeroconv.data.reading.names import shown
from zeroconv.data.reading.regular import open_regular, stand_in
from zeroconv.data.reading.scan import CAPTIONS, SUFFIXES
from zeroconv.data.reading.texts import MAX_TEXT, decode
from zeroconv.data.sources.columns import USUAL, Columns, captions
from zeroconv.errors import UserError

MAX_MEMBERS = 2_000_000  # files in a shard
MAX_HEADER = 1 << 16  # bytes of a long name or of PAX records
MAX_PICTURE = 1 << 29  # bytes of a file in a shard
_AFTER = 1 << 20  # bytes behind the end that are looked at

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_FORMATS = (".png", ".jpg", ".jpeg", ".webp")  # first, as ever; then the rest of what is read
_PICTURES = (*_FORMATS, *sorted(SUFFIXES - set(_FORMATS)))

_RECORDS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
Parts = Mapping[str, tuple[int, int]]  # ".png" → (offset, bytes)


class _Header(tarfile.TarInfo):
    """A header that is believed only so far."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size < 0:
            raise UserError("a header gives a negative size")
        if self.type in _RECORDS and self.size > MAX_HEADER:
            raise UserError(f"a header of {self.size:,} bytes, at most {MAX_HEADER:,} are read")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _refuse_sparse(self, *_: Any) -> Any:
        raise UserError("it holds a sparse file; pack it with plain ones")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def index_tar(path: Path, name: object) -> dict[str, Any]:
    """What a tar holds: {"members": [[key, [[part, [offset, size]], …]], …], "notes": [sentence,
    …]}.

    `KEY.hint.png` is the part ".hint.png" of KEY. Hidden files and folders are left out. Raises
    UserError: no tar, compressed, damaged, over a limit, or with members that are no files.
    """
    try:
        with open_regular(path) as file:
            start = file.read(8)
            for mark, kind in _PACKED.items():
                if start.startswith(mark):
                    raise UserError(f"it is packed with {kind}; unpack it to a plain .tar first")
            if kind := stand_in(start):
                raise UserError(f"it is {kind}")
            file.seek(0)
            return _index(file)
    except (
        tarfile.TarError,
        OSError,
        RecursionError,
        MemoryError,
        OverflowError,
        ValueError,
    ) as error:
        if isinstance(error, UserError) and str(path) in str(error):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{name} cannot be read as tar ({lines[0].rstrip(':.')}).") from error


def _index(file: Any) -> dict[str, Any]:
    examples: dict[str, dict[str, tuple[int, int]]] = {}
    notes: list[str] = []
    size = file.seek(0, 2)
    file.seek(0)
    with tarfile.TarFile(fileobj=file, tarinfo=_Header) as archive:
        for member in _members(archive):
            folder, _, base = member.name.replace("\\", "/").rpartition("/")
            if member.isdir() or not base or base.startswith("._") or base == ".DS_Store":
                continue
            if not member.isreg():
                raise UserError(
                    f"it holds {shown(member.name)}, which is a link or a device; pack the files "
                    "themselves"
                )
            if member.size > MAX_PICTURE or member.offset_data + member.size > size:
                raise UserError(
                    f"{shown(member.name)} claims {member.size:,} bytes, more than are there or "
                    "are read"
                )

            stem, _, part = base.partition(".")
            if not stem:
                notes.append(f"{shown(member.name)} is hidden, so it is passed over")
                continue
            parts = examples.setdefault(f"{folder}/{stem}" if folder else stem, {})
            if f".{part.lower()}" in parts:
                notes.append(f"{shown(member.name)} is there twice, the last counts")
            parts[f".{part.lower()}"] = (member.offset_data, member.size)
        _check_end(file, archive.offset, size)

    members = [
        [key, [[part, list(span)] for part, span in parts.items()]]
        for key, parts in examples.items()
    ]
    more = [f"{len(notes) - 4} more of such"] if len(notes) > 5 else []
    return {"members": members, "notes": [*notes[: 5 - len(more)], *more]}


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Every member, none of which is kept: a million of them take a gigabyte."""
    for count, member in enumerate(archive):
        if count >= MAX_MEMBERS:
            raise UserError(f"it holds more than {MAX_MEMBERS:,} files; cut it into several shards")
        yield member
        setattr(archive, "members", [])  # noqa: B010  # typeshed does not know it


def _check_end(file: Any, offset: int, size: int) -> None:
    """A tar ends with zeros. Anything else is a header that could not be read, or another tar
    behind it.
    """
    file.seek(offset)
    rest = file.read(min(_AFTER, max(0, size - offset)))
    if rest.strip(b"\0"):
        at = offset + len(rest) - len(rest.lstrip(b"\0"))
        raise UserError(
            f"it is damaged at byte {at:,}, or another tar was put behind it; pack it again as one"
        )


def _named(name: str) -> tuple[str, ...]:
    """The parts that a column's name may stand for: "hint" → ".hint.png", … and ".hint" itself."""
    return (f".{name.lower()}", *(f".{name.lower()}{suffix}" for suffix in _PICTURES))


# ---------------------------------------------------------------- one example's parts


def image_part(parts: Parts, columns: Columns) -> str | None:
    """Which part is the picture."""
    usual = columns.image_column == USUAL.image_column
    names = [part for name in columns.image_column for part in _named(name)]
    return (
        next((part for part in (*_PICTURES, *names) if part in parts), None)
        if usual
        else _first(parts, names)
    )


def hint_part(parts: Parts, columns: Columns) -> str | None:
    """Which part is the hint; None where there is none."""
    names = [part for name in columns.conditioning_image_column for part in _named(name)[1:]]
    if columns.names_hints:
        names += [f".{columns.conditioning_image_column[0].lower()}"]
    return _first(parts, names)


def mask_part(parts: Parts, columns: Columns) -> str | None:
    """Which part is the mask; None where there is none, or masks are not asked for."""
    if columns.masks != "mask":
        return None
    names = [part for name in columns.mask_column for part in _named(name)]
    return _first(parts, names)


def caption_part(parts: Parts, columns: Columns) -> str | None:
    """Which part holds the caption: a text, or KEY.json with a column of captions; None where there
    is none.
    """
    if columns.caption_column != USUAL.caption_column:
        name = columns.caption_column[0].lower()
        names = [f".{name}.txt", f".{name}", ".json", *CAPTIONS]
    else:
        named = [f".{name}{end}" for name in columns.caption_column for end in (".txt", "")]
        names = [*CAPTIONS, *named, ".json"]

    # an empty text stands back where another part has words
    filled = [name for name in names if name in parts and parts[name][1] > 0]
    return filled[0] if filled else _first(parts, names)


def _first(parts: Parts, names: list[str]) -> str | None:
    return next((name for name in names if name in parts), None)


def read_part(path: Path, span: tuple[int, int], name: str) -> bytes:
    """The bytes of a part. Raises UserError where the file has become shorter."""
    with open_regular(path) as file:
        file.seek(span[0])
        content = file.read(span[1])
    if len(content) != span[1]:
        raise UserError(f"{name} ends before its {span[1]:,} bytes do.")
    return content


def read_captions(path: Path, parts: Parts, columns: Columns, name: str) -> tuple[str, ...]:
    """The captions of an example; ("",) where it has no part that could hold one. Raises UserError,
    TypeError.
    """
    part = caption_part(parts, columns)
    if part is None:
        return ("",)
    if parts[part][1] > MAX_TEXT:
        raise UserError(
            f"the caption {part} of {name} has {parts[part][1]:,} bytes, at most {MAX_TEXT:,} are "
            "read."
        )

    text = decode(read_part(path, parts[part], name), f"{name}{part}")
    if part != ".json":
        return captions(text.splitlines() or [""])

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}.json is no JSON ({error}).") from error
    if isinstance(value, dict):
        try:
            return columns.caption(value)
        except KeyError as error:
            raise UserError(
                f"{name}.json has no caption {error}; it has {', '.join(map(shown, value))}. Name "
                "one with caption_column= in the data spec."
            ) from error
    raise UserError(f"{name}.json holds no object with a caption.")
