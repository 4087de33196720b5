"""Words that hold several things: parted by what exists, not by the first sign."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroconv.checkpoints.lora import parse_lora
from zeroconv.cli.generate.controls import parse_control
from zeroconv.errors import UserError
from zeroconv.words import assignment, number

# what a file may be called; the signs that part words come often
names = st.text(st.sampled_from("ab=:. \\{},~é-1C"), min_size=1, max_size=12).filter(
    lambda name: name.strip(" .") == name and not name.startswith(("~", "{"))
)
weights = st.floats(-100, 100).map(lambda x: round(x, 3))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"x")


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        (
            "epoch=22-step=5335.ckpt=hint.png",
            ["epoch=22-step=5335.ckpt", "hint.png"],
            ("epoch=22-step=5335.ckpt", "hint.png", False),
        ),
        (
            "epoch=22-step=5335.ckpt:a=b.png",
            ["epoch=22-step=5335.ckpt", "a=b.png"],
            ("epoch=22-step=5335.ckpt", "a=b.png", True),
        ),
        # the picture alone is there: the network's name is told to be missing later
        ("no=such.ckpt=hint.png", ["hint.png"], ("no=such.ckpt", "hint.png", False)),
        # nothing is there: colons of drives and addresses part nothing
        ("C:\\models\\x=h.png", [], ("C:\\models\\x", "h.png", False)),
        ("canny=C:\\h.png", [], ("canny", "C:\\h.png", False)),
        ("x=C:/pictures/h.png", [], ("x", "C:/pictures/h.png", False)),
        ("https://host/a=h.png", [], ("https://host/a", "h.png", False)),
        ("canny:hint=1.png", ["hint=1.png"], ("canny", "hint=1.png", True)),
        ("owner/name=h.png", [], ("owner/name", "h.png", False)),
        ("canny=a:b=c.png", [], ("canny", "a:b=c.png", False)),
    ],
)
def test_a_control_is_parted_where_things_exist(here, text, there, expected) -> None:
    make(*there)
    assert parse_control(text) == expected


def test_control_with_two_readings_is_noted_and_json_has_one(here) -> None:
    make("a", "a=b", "b=c.png", "c.png")
    with pytest.warns(UserWarning, match="2 ways") as caught:
        assert parse_control("a=b=c.png") == ("a=b", "c.png", False)
    assert '{"name": "a=b", "hint": "c.png"}' in str(caught[0].message)
    as_json = json.dumps({"name": "a", "draw": "b=c.png"})
    assert parse_control(as_json) == ("a", "b=c.png", True)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"name": "a"}',
        '{"name": "a", "hint": 3}',
        '{"name": "a", "hint": "b", "draw": "c"}',
        '{"name": "", "hint": "b"}',
        "{" * 100_000,
    ],
)
def test_a_control_in_json_that_is_none_is_refused(text) -> None:
    with pytest.raises(UserError, match="not understood"):
        parse_control(text)


@given(names, names, st.sampled_from("=:"), st.booleans())
def test_controls_round_trip_whatever_they_are_called(name, picture, sign, as_json) -> None:
    """A control and a picture that exist are found."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        try:
            make(f"n/{name}", f"p/{picture}")
            given_name, given_picture = f"n/{name}", f"p/{picture}"
            if as_json:
                key = "draw" if sign == ":" else "hint"
                text = json.dumps({"name": given_name, key: given_picture})
            else:
                text = f"{given_name}{sign}{given_picture}"
            assert parse_control(text) == (given_name, given_picture, sign == ":")
        finally:
            os.chdir(before)


@given(names, weights)
def test_a_lora_s_weight_round_trips_whatever_it_is_called(name, weight) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/{name}"
        make(path)
        assert parse_lora(path) == (path, 1.0)
        assert parse_lora(f"{path}:{weight}") == (path, weight)


def test_a_lora_of_a_drive_has_no_weight_and_a_file_named_so_wins(here) -> None:
    assert parse_lora("C:\\x.safetensors") == ("C:\\x.safetensors", 1.0)
    assert parse_lora("C:\\x.safetensors:0.5") == ("C:\\x.safetensors", 0.5)
    make("a", "a:0.8")
    with pytest.warns(UserWarning, match=r"a:\+0\.8"):
        assert parse_lora("a:0.8") == ("a:0.8", 1.0)
    assert parse_lora("a:+0.8") == ("a", 0.8)
    assert parse_lora("a:0.8:0.5") == ("a:0.8", 0.5)
    for text in ("style:strong", "style:nan", "style:1e999", "style:" + "9" * 5000):
        with pytest.raises(UserError, match="has the weight"):
            parse_lora(text)


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1_0", "0x1", "", " ", "1e999", "9" * 5000, "²", "--1"]
)
def test_what_is_no_number_is_none(text) -> None:
    assert number(text) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_round_trip(value) -> None:
    assert number(repr(value)) == value


def test_an_assignment_keeps_every_sign_of_its_value() -> None:
    assert assignment("low=a=b:c") == ("low", "a=b:c")
    assert assignment("low=") == ("low", "")
    assert assignment("low") is None
    assert assignment("=1") is None
