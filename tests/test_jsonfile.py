"""JSON that every program can read, and files that hold anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroconv.jsonfile import parse_json, read_json, to_json, write_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@given(VALUES)
def test_to_json_is_standard_and_fits_utf_8(value: object) -> None:
    text = to_json(value)
    read = json.loads(text.encode(), parse_constant=no_constant)
    assert to_json(read) == text


NO_NUMBERS = [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_to_json_has_null_for_what_is_no_number(value: float) -> None:
    text = to_json({"a": [value, (value,)], "b": {"c": value}})
    assert json.loads(text) == {"a": [None, [None]], "b": {"c": None}}


def test_to_json_takes_arrays_and_paths() -> None:
    torch = pytest.importorskip("torch")
    values = {
        "array": np.arange(3),
        "tensor": torch.tensor([1.0, float("nan")]),
        "path": Path("x/y"),
        "number": np.int64(3),
    }
    expected = {"array": [0, 1, 2], "tensor": [1.0, None], "path": str(Path("x/y")), "number": 3}
    assert json.loads(to_json(values)) == expected
    with pytest.raises(TypeError, match="a set has no form in JSON"):
        to_json({1, 2})


def test_write_json_keeps_the_old_file_where_it_fails(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json(tmp_path / "a.json") == {"a": 1}
    # as os.listdir gives a name that is no UTF-8
    write_json(tmp_path / "a.json", {"name": "\udcff.png"})
    assert read_json(tmp_path / "a.json") == {"name": "\udcff.png"}


NEARLY = st.text(alphabet='[]{}",:0123456789eE+-.NaInfity \ufeff', max_size=60)
HOSTILE = [
    "[" * 300 + "]" * 300,
    "[" * 100_000,
    '{"a":' * 100_000,
    "9" * 5000,
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "",
]


@given(st.binary(max_size=60) | NEARLY)
def test_parse_json_raises_value_error_alone(text: str | bytes) -> None:
    try:
        value = parse_json(text)
    except ValueError:
        return
    json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.parametrize("text", HOSTILE)
def test_parse_json_refuses_hostile_texts(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_parse_json_reads_no_infinity() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": NaN, "b": [1e999, -Infinity], "c": 1.5}') == {
        "a": None,
        "b": [None, None],
        "c": 1.5,
    }


def test_read_json_reads_regular_files_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("[" + "1," * 100 + "1]")
    with pytest.raises(ValueError, match="more than 50 bytes"):
        read_json(tmp_path / "long", most=50)
    with pytest.raises(OSError):
        read_json(tmp_path)
    with pytest.raises(OSError):
        read_json(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="no regular file"):
            read_json(tmp_path / "pipe")
