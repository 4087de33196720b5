"""Prompts that are longer than the encoder that reads them."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tiny import TEXT_LENGTH, tiny_backbone
from zeroconv.backbones.text import count_tokens, note_cut_prompts, token_limit

BACKBONE = tiny_backbone()
ENDS = 2  # the tokens that begin and end a prompt


def words(count: int) -> str:
    """A prompt of exactly so many tokens."""
    for n in range(1, 200):
        text = " ".join(["a"] * n)
        if count_tokens(BACKBONE, [text]) == [count]:
            return text
    raise AssertionError(count)


def test_token_limit_is_what_the_encoder_reads() -> None:
    assert token_limit(BACKBONE) == TEXT_LENGTH
    assert count_tokens(BACKBONE, [""]) == [ENDS]


def test_note_cut_prompts_is_quiet_up_to_the_limit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert note_cut_prompts(BACKBONE, ["", words(TEXT_LENGTH)]) == 0


def test_note_cut_prompts_names_count_limit_and_the_first() -> None:
    first, second = words(TEXT_LENGTH + 1), words(TEXT_LENGTH + 9)
    sentence = rf"2 captions are longer than the {TEXT_LENGTH} tokens .* has {TEXT_LENGTH + 1};"
    with pytest.warns(UserWarning, match=sentence) as told:
        assert note_cut_prompts(BACKBONE, ["short", first, second, first], "captions") == 2
    assert len(told) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_note_cut_prompts_finds_all_that_are_cut(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = note_cut_prompts(BACKBONE, [text])
    assert found == (count_tokens(BACKBONE, [text])[0] > TEXT_LENGTH)
