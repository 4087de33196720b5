"""Names that come with data are labels: what they may call, and where they may lead.

`label` makes the name of an output file from any text. `inside` finds the file that a list names,
and refuses what lies outside of its data set.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from zeroconv import files
from zeroconv.errors import UserError

# bytes of UTF-8; file systems take 255, and a temporary name and a suffix come on top
_PART, _LONGEST, _DEEPEST = 120, 480, 16

# of Windows, with and without a suffix: they name devices there
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.I)
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_UNSEEN = (
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
    "Zl",
    "Zp",
)  # control, direction, half a pair, private, unassigned, breaks


def label(name: str) -> str:
    """A relative path with "/" that every file system takes, made from a name that data gives.

    It is never empty, absolute or hidden, has no "..", and at most 480 bytes in UTF-8.
    `label(label(x)) == label(x)`. Different names may get one label; `distinct` tells which.
    """
    text = unicodedata.normalize("NFC", name).replace("\\", "/")
    parts = [_part(part) for part in text.split("/") if part.strip(". ")]
    path = "/".join(parts) or "_"

    if len(parts) > _DEEPEST or len(path.encode()) > _LONGEST:
        path = f"{_short(parts[-1], _PART - 13)}-{_digest(name)}"
    return path


def _part(part: str) -> str:
    """One name between slashes."""
    shown = "".join(
        "_" if unicodedata.category(c) in _UNSEEN else c for c in _FORBIDDEN.sub("_", part)
    )
    shown = shown.strip(" ").rstrip(". ")

    if shown.startswith("."):
        shown = f"_{shown}"
    if not shown or _RESERVED.match(shown):
        shown = f"_{shown}"
    if len(shown.encode()) > _PART:
        shown = f"{_short(shown, _PART - 13)}-{_digest(part)}"
    return shown


def _short(text: str, size: int) -> str:
    """As much of a text as fits into `size` bytes, without an end that Windows drops."""
    return text.encode()[:size].decode(errors="ignore").rstrip(". ")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def same_file(name: str) -> str:
    """Equal for two labels that some file system takes for one file: by case, or by how accents are
    written.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


def distinct(labels: Iterable[str]) -> list[tuple[int, int]]:
    """Pairs of places at which two labels would be one file on some file system: (first, later)."""
    seen: dict[str, int] = {}
    pairs = []
    for index, one in enumerate(labels):
        first = seen.setdefault(same_file(one), index)
        if first != index:
            pairs.append((first, index))
    return pairs


def shown(name: object) -> str:
    """A name for messages, lists and logs: one line of valid UTF-8, not longer than a line."""
    return files.shown(str(name))


# ---------------------------------------------------------------- reading


def inside(folder: Path, name: str, roots: Sequence[Path] | None = ()) -> Path:
    """The file that a list in `folder` names.

    It must lie in `folder` or one of `roots` after all links are followed; `roots=None` lets it lie
    anywhere. Raises UserError. A file that is not there gives its path. "\\" is read as "/" and
    accents in the other way of writing them where the name as it stands is not there.
    """
    if not is_name(name):
        raise UserError(
            f"{shown(name)!r} is no name of a file; it was read from a list in {folder}."
        )

    path = _there(folder, name)
    if roots is None:
        return path

    real = Path(os.path.realpath(path))
    homes = [Path(os.path.realpath(home)) for home in (folder, *roots)]
    if not any(real.is_relative_to(home) for home in homes):
        raise UserError(
            f"{shown(name)!r} leads out of the data set's folder {folder}; copy the file into it, "
            "or allow such names and links with ?links=true in the data spec."
        )
    return path


def blobs_of(folder: Path) -> tuple[Path, ...]:
    """Where the files of a snapshot in the hub's cache lie, to which its links lead; () for other
    folders."""
    for commit_folder in (folder.absolute(), *folder.absolute().parents):
        home = commit_folder.parent.parent
        if commit_folder.parent.name == "snapshots" and home.name.startswith("datasets--"):
            return (home / "blobs",)
    return ()


def _there(folder: Path, name: str) -> Path:
    """The path of a name, in the way of writing it in which it is there."""
    ways = [name, name.replace("\\", "/")]
    ways += [unicodedata.normalize(form, ways[1]) for form in ("NFC", "NFD")]
    paths = [folder / way for way in dict.fromkeys(ways)]
    return next((path for path in paths if os.path.lexists(path)), folder / ways[1])


def is_name(name: str) -> bool:
    """Whether a file can have this name: no NUL in it, and nothing that the system cannot
    encode.
    """
    if name.isascii():
        return bool(name) and "\0" not in name
    try:
        return bool(name) and b"\0" not in os.fsencode(name)
    except UnicodeError:
        return False


def escapes(name: str) -> bool:
    """Whether a name says by itself that it leads out of its folder; links are another matter."""
    parts = name.replace("\\", "/").split("/")
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return False
