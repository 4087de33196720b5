"""Encodings of captions and lists: recognised, or named with file and line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroconv.data.reading.regular import open_regular
from zeroconv.data.reading.texts import (
    MAX_CAPTION,
    MAX_LINE,
    MAX_TEXT,
    check_caption,
    decode,
    read_lines,
    read_text,
)
from zeroconv.errors import UserError

MARKED = [
    ("utf-8", b""),
    ("utf-8", codecs.BOM_UTF8),
    ("utf-16-le", codecs.BOM_UTF16_LE),
    ("utf-16-be", codecs.BOM_UTF16_BE),
    ("utf-32-le", codecs.BOM_UTF32_LE),
    ("utf-32-be", codecs.BOM_UTF32_BE),
]
WORDS = "a café\nзима, 日本 and 😀\n"


@pytest.mark.parametrize(("encoding", "mark"), MARKED)
def test_decode_recognises_encodings_by_their_mark(
    tmp_path: Path, encoding: str, mark: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(mark + WORDS.encode(encoding))
    assert read_text(path) == WORDS
    assert [line for _, line in read_lines(path)] == WORDS.splitlines()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_decode_recognises_utf16_without_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("a lighthouse at dusk".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "a lighthouse at dusk"


# a text whose first letter is U+FEFF, or that is mostly NUL, is not told from its encoding
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=60
)


@given(TEXT, st.sampled_from(MARKED))
def test_decode_reads_any_text_back(text: str, kind: tuple[str, bytes]) -> None:
    assert decode(kind[1] + text.encode(kind[0]), "a.txt") == text


@given(st.binary(max_size=200))
def test_decode_of_any_bytes_is_text_or_a_sentence_with_a_line(content: bytes) -> None:
    try:
        message = decode(content, "a.txt") and ""
    except UserError as error:
        message = str(error)
    assert not message or ("a.txt, line " in message and "save the file as UTF-8" in message)


@pytest.mark.parametrize("before", [1, 3, 5000])
def test_read_lines_names_the_line_that_is_no_utf8(tmp_path: Path, before: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b"plain\n" * before + "un café\n".encode("cp1252") + b"more\n"
    )
    with pytest.raises(
        UserError,
        match=rf"a\.jsonl, line {before + 1}: byte 0xe9 \('é' in Windows-1252\) is no UTF-8",
    ):
        list(read_lines(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\0b", "NUL"), ("\ud800", "surrogate"), ("x" * (MAX_CAPTION + 1), "100,001 characters")],
)
def test_check_caption_refuses_what_no_file_can_hold(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_caption(text)


def test_texts_are_bounded(tmp_path: Path) -> None:
    with open(tmp_path / "sparse.txt", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match=f"longer than {MAX_TEXT:,} bytes"):
        read_text(tmp_path / "sparse.txt")
    with pytest.raises(UserError, match=f"line 1: longer than {MAX_LINE:,} characters"):
        list(read_lines(tmp_path / "sparse.txt"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: os.mkfifo(path), "is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: None, "is missing"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
def test_open_regular_opens_files_alone(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "a.txt")
    with pytest.raises(UserError, match=message):
        open_regular(tmp_path / "a.txt")
