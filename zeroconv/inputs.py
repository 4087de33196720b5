"""Small files of the user's (recipes, configs, notes): read whole within a bound, as text or JSON.

A reader without a bound takes all memory or never ends where the file is a device, or a gigabyte.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from zeroconv.errors import UserError

_DEEPEST = 100  # levels of lists and objects within each other
# bytes; a tokenizer's vocabulary has 4 MB, the index of a model in shards 10 MB
MOST_JSON = 64 << 20

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

    Raises UserError for a folder, a pipe, a device or a file over the bound; OSError
    (FileNotFoundError among them) where it cannot be opened.
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
        raise UserError(
            f"the {what} {path} has more than {most:,} bytes, the most that is read; is it the "
            "right file?"
        )
    return content


def read_text(path: str | os.PathLike, most: int, what: str = "file") -> str:
    """The text of a file, as `decode` reads it. Raises what `read_bytes` and `decode` raise."""
    return decode(read_bytes(path, most, what), f"the {what} {path}")


def decode(content: bytes, name: str) -> str:
    """UTF-8, or the UTF-16 or UTF-32 that its first bytes show. Raises UserError with the line at
    fault.
    """
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
            f"{name} is no text in {encoding.upper()}: line {line} holds the byte "
            f"{content[error.start]:#04x}; save it as UTF-8."
        ) from error


def parse_json(text: str | bytes, null: bool = False, unique: bool = False) -> Any:
    """The value of a JSON text; bytes are UTF-8, with or without a byte order mark.

    NaN, Infinity and numbers too large for a float are refused or, where `null` is true, None.
    Of a name that an object has twice the last value counts; where `unique` is true it is refused.
    Raises ValueError, and nothing else, for them, for what is no JSON, is nested too deeply, or
    holds an integer too long to read.
    """
    constant, number = (_null, _finite_or_null) if null else (_no_number, _finite)

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        pairs = _once if unique else None
        value = json.loads(
            text, parse_constant=constant, parse_float=number, object_pairs_hook=pairs
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error

    # the parser in C goes deeper than Python functions, which are to work on the value
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def read_json(path: str | os.PathLike, most: int = MOST_JSON, null: bool = False) -> Any:
    """The JSON in a file of at most `most` bytes, by `parse_json`, in any encoding of `decode`.

    Raises ValueError where it is none (UserError, a sentence, where no JSON was looked for because
    of what the file is), OSError where it cannot be opened.
    """
    return parse_json(read_text(path, most), null)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)

    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise ValueError(f"an object has {twice[:40]!a} twice")
    return value


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text[:20])


def _finite_or_null(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _null(name: str) -> None:
    return None


def at_home(path: str | os.PathLike) -> Path:
    """The path, with a leading ~ or ~name replaced by that home folder. Raises UserError where
    there is none.
    """
    text = os.fspath(path)

    if "\0" in text or not text.strip():
        raise UserError(f"{text!r} is no path; give the name of a file or folder.")

    expanded = os.path.expanduser(text)

    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise UserError(
            f"{text} names a home folder that is not there; write the whole path, or ./{text}."
        )
    return Path(expanded)


def _no_number(name: str) -> NoReturn:
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
