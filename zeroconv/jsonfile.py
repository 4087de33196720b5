"""JSON as the package writes and reads it: NaN becomes null, and a bad file raises known errors.

Standard JSON has no NaN and no Infinity. Python writes them all the same, and other programs fail
on them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zeroconv.files import atomic_write

_DEEPEST = 100  # levels of lists and objects within each other


def to_json(value: Any, indent: int | None = None, sort_keys: bool = False) -> str:
    """One JSON text that every reader takes and UTF-8 can hold: NaN and ±Infinity become null.

    Also taken: paths, tuples, numbers and arrays of NumPy and torch. Raises TypeError for anything
    else.
    """
    plain = to_plain(value)
    options: Any = {"indent": indent, "sort_keys": sort_keys, "allow_nan": False}
    text = json.dumps(plain, ensure_ascii=False, **options)

    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: a file name that is no UTF-8 has it
        text = json.dumps(plain, **options)
    return text


def write_json(
    path: str | os.PathLike,
    value: Any,
    indent: int | None = 2,
    sort_keys: bool = False,
) -> None:
    """Write `to_json(value)` and a newline to a file, whole or not at all."""
    text = to_json(value, indent, sort_keys) + "\n"  # before the file is touched

    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark.

    NaN, Infinity and numbers too large for a float become None. Raises ValueError, and nothing
    else, for what is no JSON, is nested too deeply, or holds an integer too long to read.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text, parse_constant=lambda name: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error

    # the parser in C goes deeper than Python functions, which are to work on the value
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def read_json(path: str | os.PathLike, most: int = 2**28) -> Any:
    """The value of a JSON file of at most `most` bytes.

    Raises OSError where it cannot be read, as a folder, a device or a pipe; ValueError where it is
    no JSON.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")

    with open(path, "rb") as file:
        content = file.read(most + 1)

    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return parse_json(content)


def to_plain(value: Any) -> Any:
    """The same value in types that JSON knows, what is no finite number as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {_key(name): to_plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy's and torch's numbers and arrays
        return to_plain(value.tolist())
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _key(name: Any) -> Any:
    if isinstance(name, float):
        return to_plain(name)
    return os.fspath(name) if isinstance(name, os.PathLike) else name


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
