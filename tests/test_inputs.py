"""Small files: any encoding of Unicode, nothing but regular files, nothing over a bound; JSON that
ends.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroconv.errors import UserError
from zeroconv.inputs import at_home, decode, parse_json, read_json, read_text


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
def test_text_of_every_unicode_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.yaml").write_bytes("out: réuni 😀\n".encode(encoding))
    assert read_text(tmp_path / "a.yaml", 1000) == "out: réuni 😀\n"


def test_text_of_another_encoding_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("a: 1\nout: réuni\n".encode("cp1252"))
    with pytest.raises(
        UserError, match=r"the recipe .*a.yaml is no text in UTF-8: line 2 holds the byte 0xe9"
    ):
        read_text(tmp_path / "a.yaml", 1000, "recipe")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "big").write_bytes(b"x" * 1001)
    for name, message in {
        "": "a folder",
        "pipe": "a pipe",
        "link": "a device",
        "big": "more than 1,000 bytes",
    }.items():
        with pytest.raises(UserError, match=f"the recipe .* {message}"):
            read_text(tmp_path / name, 1000, "recipe")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none", 1000)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_text_or_one_sentence(content: bytes) -> None:
    message = ""
    try:
        decode(content, "the file")
    except UserError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "NaN", '{"a": -Infinity}', "9" * 5000, "", "{"]
)
def test_json_that_is_none_is_a_value_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")


def test_paths_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert at_home("~/a") == tmp_path / "a" and at_home("a/~b") == Path("a/~b")
    (tmp_path / "~odd").touch()
    assert at_home("~odd") == Path("~odd")
    for text in ("~nobody-of-this-name/a", "", "a\0b"):
        with pytest.raises(UserError):
            at_home(text)
