"""Text files of a data set: captions and lists, in the encodings that people's editors write, with
limits.

UTF-8 with or without a byte order mark and UTF-16 and UTF-32 are recognised. Anything else is named
in the error, with file and line.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zeroconv.data.reading.names import shown
from zeroconv.data.reading.regular import open_regular
from zeroconv.errors import UserError

MAX_TEXT = 1 << 20  # bytes of a caption file
MAX_LINE = 1 << 20  # characters of a line of a list
MAX_CAPTION = 100_000  # characters

_MARKS = (  # UTF-32 first: its mark begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(start: bytes) -> str:
    """The encoding of a text that begins so: by its mark, else UTF-16 where every other byte is
    zero, else UTF-8.
    """
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name

    even, odd = start[0::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if half and odd * 10 > half * 4 and even * 10 < half:
        return "utf-16-le"
    if half and even * 10 > half * 4 and odd * 10 < half:
        return "utf-16-be"
    return "utf-8"


def read_text(path: Path) -> str:
    """A small text file. Raises UserError: no ordinary file, over 1 MiB, or in no encoding that is
    known.
    """
    with open_regular(path) as file:
        return decode(read_limited(file, MAX_TEXT, path), path)


def read_limited(file: BinaryIO, limit: int, name: object) -> bytes:
    """All of an open file. Raises UserError where it is longer than `limit` bytes."""
    content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(
            f"{shown(name)} is longer than {limit:,} bytes, so it is no caption or description."
        )
    return content


def decode(content: bytes, name: object) -> str:
    """Bytes as text. Raises UserError that names `name` and the line."""
    encoding = encoding_of(content[:4096])
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, "replace")
        raise UserError(_undecodable(name, before.count("\n") + 1, error)) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line without its end) of a list, however long the list is. Raises UserError as
    `read_text`.
    """
    with open_regular(path) as file:
        encoding = encoding_of(file.read(4096))
        file.seek(0)
        number = 0
        lines = io.TextIOWrapper(file, encoding=encoding, newline=None)
        while True:
            number += 1
            try:
                line = lines.readline(MAX_LINE + 1)
            except UnicodeDecodeError as error:
                raise UserError(
                    _undecodable(path, _line_of(path, encoding, number), error)
                ) from error
            except OSError as error:
                raise UserError(
                    f"{shown(path)} cannot be read ({error.strerror or error})."
                ) from error

            if len(line) > MAX_LINE:
                raise UserError(
                    f"{shown(path)}, line {number}: longer than {MAX_LINE:,} characters; write one "
                    "picture a line."
                )
            if not line:
                return
            yield number, line.removesuffix("\n")


def _line_of(path: Path, encoding: str, least: int) -> int:
    """The line that cannot be decoded: the reader decodes some lines ahead."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    number = 1
    with open_regular(path) as file:
        while part := file.read(1 << 16):
            before = decoder.getstate()
            try:
                number += decoder.decode(part).count("\n")
            except UnicodeDecodeError:
                decoder.setstate(before)
                return max(least, number + _good(decoder, part).count("\n"))
    return max(least, number)


def _good(decoder: codecs.IncrementalDecoder, part: bytes) -> str:
    """What can be decoded of a part before its first mistake."""
    text = ""
    for i in range(len(part)):
        try:
            text += decoder.decode(part[i : i + 1])
        except UnicodeDecodeError:
            break
    return text


def _undecodable(name: object, line: int, error: UnicodeDecodeError) -> str:
    byte = error.object[error.start : error.start + 1]
    guess = ""
    if error.encoding.startswith("utf-8") and byte >= b"\x80":
        letter = byte.decode("cp1252", "replace")
        guess = f" ({letter!r} in Windows-1252)" if letter.isprintable() else ""
    bad = f"byte 0x{byte.hex()}{guess}" if byte else "a character that is cut off"
    encoding = error.encoding.upper().removesuffix("-SIG")
    return f"{shown(name)}, line {line}: {bad} is no {encoding}; save the file as UTF-8."


def check_caption(text: str) -> str:
    """A caption as it is. Raises ValueError: a NUL, half a surrogate pair, or more than 100,000
    characters.
    """
    if "\0" in text:
        raise ValueError("the caption holds a NUL character")
    if len(text) > MAX_CAPTION:
        raise ValueError(
            f"the caption has {len(text):,} characters, at most {MAX_CAPTION:,} are read"
        )
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the caption holds half a surrogate pair, \\u{ord(text[error.start]):04x}"
        ) from error
    return text
