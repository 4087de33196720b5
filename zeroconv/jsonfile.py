"""JSON as the package writes and reads it: NaN becomes null, and a bad file raises known errors.

Standard JSON has no NaN and no Infinity. Python writes them all the same, and other programs fail
on them.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from zeroconv import inputs
from zeroconv.files import atomic_write


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
    """`inputs.parse_json` of what this package wrote: NaN, as older versions wrote it, is None."""
    return inputs.parse_json(text, null=True)


def read_json(path: str | os.PathLike, most: int = 2**28) -> Any:
    """The value of a JSON file of at most `most` bytes.

    Raises OSError where it cannot be read, as a folder, a device or a pipe; ValueError where it is
    no JSON.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")
    return inputs.read_json(path, most, null=True)


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


def _key(name: Any) -> Any:
    if isinstance(name, float):
        return to_plain(name)
    return os.fspath(name) if isinstance(name, os.PathLike) else name
