"""YAML of recipes: what it means, what is refused with its line, and that nothing takes long."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroconv.errors import UserError
from zeroconv.training.recipes.yaml import parse_yaml


def nested(bottom: str, line: str) -> str:
    """Nine aliases of the line before in every line: 381 bytes that mean 9⁹ values."""
    names = "abcdefghij"
    lines = [
        line.format(name=n, aliases=",".join([f"*{o}"] * 9)) for o, n in itertools.pairwise(names)
    ]
    return f"a: &a {bottom}\n" + "\n".join(lines)


REFUSED = {
    "aliases that multiply": (
        nested("[x]", "{name}: &{name} [{aliases}]"),
        "line [0-9]+: it holds more than 20,000",
    ),
    "merges that multiply": (
        nested("{x: 1}", "{name}: &{name} {{<<: [{aliases}]}}"),
        "more than 20,000",
    ),
    "a value that holds itself": ("a: &a [*a]", "line 1: it holds a value that holds itself"),
    "an unknown alias": ("a: *b", "undefined alias"),
    "depth of lists": ("a: " + "[" * 5000, "more than 32 values within each other"),
    "depth of mappings": (
        "\n".join(" " * i + "a:" for i in range(60)),
        "line 32: .* within each other",
    ),
    "many values": ("a: [" + "1, " * 30_000 + "]", "more than 20,000 values"),
    "a tag of numbers": ("a: 1\nb: !!int foo", "line 2: it holds the tag !!int"),
    "a tag of Python": ("a: !!python/object/apply:os.system [true]", "the tag !!python/object"),
    "a tag of bytes": ("a: !!binary aGVsbG8=", "the tag !!binary"),
    "a tag of one's own": ("!mine\na: 1", "the tag !mine"),
    "5,000 digits": ("a: " + "9" * 5000, "a number of 5,000 digits"),
    "5,000 digits of a fraction": ("a: 0." + "9" * 4998, "a number of 5,000 digits"),
    "a double name": ("a: 1\nb:\n  c: 1\n  c: 2", "line 4: it holds the name c twice"),
    "a double name in quotes": ("a: 1\n'a': 2", "line 2: it holds the name a twice"),
    "a name that is no text": ("a: 1\non: 2", "line 2: it holds the name on, .* quotes"),
    "a list as a name": ("? [a, b]\n: 1", "a list or a mapping, .* no text"),
    "a leading zero": ("a: 010", "line 1: it holds 010, a number with a leading zero"),
    "a tab": ("a:\n\tb: 1", "line 2: a tab stands"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: this is no YAML"),
    "an open bracket": ("a: [1, 2", "no YAML"),
    "half a character": (r'a: "\ud800"', "half a character"),
    "NUL": (r'a: "x\0y"', "NUL"),
    "a control character": ("a: 1\nb: \x01", r"line 2: it holds the character U\+0001"),
    "empty hexadecimals": ("a: 0x_", "no value"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_yaml_refuses_with_a_line(name: str) -> None:
    text, sentence = REFUSED[name]
    began = time.monotonic()

    with pytest.raises(UserError, match=sentence) as caught:
        parse_yaml(text, "the recipe")

    assert str(caught.value).startswith("the recipe") and len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-5", 1e-5),
        ("-.5", -0.5),
        ("10_000", 10_000),
        ("0x1F", 31),
        ("0", 0),
        ("1" + "0" * 30, 10**30),
        ("true", True),
        ("~", None),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02 03:04:05", "2026-01-02 03:04:05"),
        ("1:30", "1:30"),
        ("!!str 5", "5"),
        (r'"\ud83d\ude00"', "😀"),
        ("[a, 1]", ["a", 1]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_yaml_reads(text: str, value: object) -> None:
    result = parse_yaml(f"x: {text}", "it")["x"]
    assert result == value and type(result) is type(value)


def test_yaml_reads_aliases_and_merges() -> None:
    values = parse_yaml("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3", "it")
    assert values == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}


PIECES = st.sampled_from(
    [
        "a",
        ": ",
        "\n",
        "  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "!!int ",
        "'",
        '"',
        "|",
        ">",
        "#",
        "?",
        "\t",
        "<<",
    ]
    + [
        ",",
        "0",
        "9",
        "1e9",
        ".inf",
        "---",
        "...",
        "%",
        "\\",
        "\0",
        "\ufeff",
        "é",
        "\ud800",
        "@",
        "`",
        "=",
        "~",
    ]
)


@settings(max_examples=300, deadline=20_000)
@given(st.lists(PIECES, max_size=40))
def test_yaml_of_any_pieces_is_a_value_or_one_sentence(pieces: list[str]) -> None:
    message = ""
    try:
        parse_yaml("".join(pieces), "the recipe")
    except UserError as error:
        message = str(error)
    assert message.startswith("the recipe") or not message
    assert "\n" not in message
