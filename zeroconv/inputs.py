"""Small files of the user's (recipes, configs, notes): read whole within a bound, as text or JSON.

A reader without a bound takes all memory or never ends where the file is a device, or a gigabyte.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError

MOST_JSON = 64 << 20  # bytes; a tokenizer's vocabulary has 4 MB, the index of a model in shards 10 MB

# UTF-32 stands before UTF-16, whose mark its own begins with
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_bytes(path: str | os.PathLike, most: int, what: str = "file") -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises UserError for a folder, a pipe, a device or a file over the bound; OSError (FileNotFoundError among
    them) where it cannot be opened.
    """
    # a pipe without a writer would be waited for
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))

    try:
        mode = os.fstat(handle).st_mode

        if not stat.S_ISREG(mode):
            raise UserError(f"the {what} {path} is {_kind(mode)}; give a regular file.")

        with open(handle, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(handle)

    if len(content) > most:
        raise UserError(f"the {what} {path} has more than {most:,} bytes, the most that is read; is it the right file?")
    return content


def read_text(path: str | os.PathLike, most: int, what: str = "file") -> str:
    """The text of a file, as `decode` reads it. Raises what `read_bytes` and `decode` raise."""
    return decode(read_bytes(path, most, what), f"the {what} {path}")


def decode(content: bytes, name: str) -> str:
    """UTF-8, or the UTF-16 or UTF-32 that its first bytes show. Raises UserError with the line at fault."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return _decoded(content[len(mark) :], encoding, name)

    # text in UTF-16 without a mark: every other byte of its first character is zero
    if len(content) >= 2 and (content[0] == 0) != (content[1] == 0):
        return _decoded(content, "utf-16-le" if content[1] == 0 else "utf-16-be", name)

    return _decoded(content, "utf-8", name)


def _decoded(content: bytes, encoding: str, name: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count("\n".encode(encoding)) + 1
        raise UserError(
            f"{name} is no text in {encoding.upper()}: line {line} holds the byte {content[error.start]:#04x}; "
            "save it as UTF-8."
        ) from error


def parse_json(text: str) -> Any:
    """`json.loads`, but whatever is wrong is a ValueError: nesting that is too deep, NaN, a number of 5,000 digits."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: str | os.PathLike, most: int = MOST_JSON) -> Any:
    """The JSON in a file. Raises ValueError where it is none (UserError, a sentence, where no JSON was looked for
    because of what the file is), OSError where it cannot be opened."""
    return parse_json(read_text(path, most))


def at_home(path: str | os.PathLike) -> Path:
    """The path, with a leading ~ or ~name replaced by that home folder. Raises UserError where there is none."""
    text = os.fspath(path)

    if "\0" in text or not text.strip():
        raise UserError(f"{text!r} is no path; give the name of a file or folder.")

    found = os.path.expanduser(text)

    if found.startswith("~") and not os.path.lexists(found):
        raise UserError(f"{text} names a home folder that is not there; write the whole path, or ./{text}.")
    return Path(found)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _kind(mode: int) -> str:
    names = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return names.get(stat.S_IFMT(mode), "no file")
