"""The words of `--fast`."""

from __future__ import annotations

import pytest

from zeroconv.errors import UserError
from zeroconv.generation.saving import EXACT, Fast, parse_fast, presets


def test_fast_is_read_as_it_is_written():
    for fast in (EXACT, *presets().values(), Fast(4, 2, 0.1, 3, 2, 0.7, 0.25, 0.5, "tiny")):
        assert parse_fast(fast.words()) == fast == parse_fast(fast)
    assert parse_fast("off") == parse_fast(None) == EXACT
    assert parse_fast(" deep = 3, guidance_end=0.5 ") == Fast(deep=3, guidance_end=0.5)
    assert parse_fast("vae=tiny,merge=0.5") == Fast(merge=0.5, vae="tiny")
    assert parse_fast({"branch": 2}) == Fast(branch=2)
    assert list(presets()) == ["x2", "x3"] and EXACT not in presets().values()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("turbo", "it is off, x2, x3, or settings"),
        ("", "it is off"),
        ("deep=0", "deep is 0; it lies between 1"),
        ("deep=1001", "between 1 and 1000"),
        ("deep=2.5", "deep is '2.5'; it is a whole number"),
        ("deep=", "whole number"),
        ("deep", "it is off"),
        ("deep=2,deep=3", "twice"),
        ("deep=2,", "has no ''"),
        ("exact=nan", "between 0 and 1"),
        ("guidance_end=1.1", "between 0 and 1"),
        ("merge=0.8", "merge is 0.8; it lies between 0 and 0.75"),
        ("vae=small", "vae is 'small'; it is full or tiny"),
        ("vae=", "it is full or tiny"),
        ("colour=2", "has no 'colour'; it has deep, layers"),
        ({"deep": 0}, "between 1"),
        ({"steps": 2}, "has no 'steps'"),
    ],
)
def test_fast_refuses_what_it_cannot_do(given, words):
    with pytest.raises(UserError, match=words):
        parse_fast(given)


@pytest.mark.parametrize(
    "given", [3, True, ["x2"], {"deep": "2"}, {"deep": True}, {"exact": "1"}, {"vae": 1}]
)
def test_fast_of_a_wrong_type_is_a_type_error(given):
    with pytest.raises(TypeError, match="fast"):
        parse_fast(given)
