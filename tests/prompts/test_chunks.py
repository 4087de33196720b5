"""Rows of tokens against A1111's rule, counted by hand. The tokenizer writes letter by letter."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tiny import TEXT_LENGTH, tiny_text
from zeroconv.prompts import parse, plain
from zeroconv.prompts.chunks import BACKTRACK, MOST_CHUNKS, Names, Row, Window, rows_of

ENCODER, TOKENIZER = tiny_text()
WINDOW = Window.of(TOKENIZER, ENCODER)
ROOM = TEXT_LENGTH - 2
BEGIN, END = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id


def rows(text: str, vectors: list[tuple[str, torch.Tensor]] | None = None) -> list[Row]:
    return rows_of([parse(text)], WINDOW, Names(TOKENIZER, vectors or []))[0]


def letters(row: Row) -> str:
    """The prompt's part of a row: a letter a token."""
    inner = row.ids[1 : row.ids.index(END)] if END in row.ids else row.ids[1:]
    return "".join(TOKENIZER.convert_ids_to_tokens(inner)).replace("</w>", "")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_rows_of_a_short_text_are_the_tokenizer_s(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    expected = TOKENIZER([text], padding="max_length", max_length=TEXT_LENGTH, truncation=True)
    (chunks,) = rows_of([plain(text)], WINDOW, Names(TOKENIZER))
    if len(TOKENIZER(text, verbose=False)["input_ids"]) <= TEXT_LENGTH:
        assert [row.ids for row in chunks] == expected["input_ids"]
        assert chunks[0].weights == [1.0] * TEXT_LENGTH


def test_rows_of_a_long_text_have_begin_and_end_each() -> None:
    chunks = rows("a" * (2 * ROOM + 3))
    assert [letters(row) for row in chunks] == ["a" * ROOM, "a" * ROOM, "aaa"]
    for row in chunks:
        assert len(row.ids) == TEXT_LENGTH == len(row.weights)
        assert row.ids[0] == BEGIN and END in row.ids
    assert len(rows("a" * ROOM)) == 1


def test_rows_are_cut_behind_a_comma_that_is_near() -> None:
    # 14 tokens fill the chunk; what is behind the comma moves into the next
    assert [letters(row) for row in rows("aaaa, bbbbbbbbbbbbb")] == ["aaaa,", "b" * 13]
    assert [letters(row) for row in rows("a, aa, bbbbbbbbbbbbb")] == ["a,aa,", "b" * 13]
    # a comma that is the first token of the next chunk stays there, as in A1111
    assert [letters(row) for row in rows("a" * ROOM + ", b")] == ["a" * ROOM, ",b"]


def test_rows_are_not_cut_at_a_comma_that_is_far() -> None:
    long = Window(TOKENIZER, 77, WINDOW.begin, WINDOW.end, WINDOW.comma, WINDOW.pad)

    def lengths(before: int) -> list[int]:
        text = "a" * (before - 1) + ", " + "b" * 80  # `before` tokens up to the comma
        (chunks,) = rows_of([plain(text)], long, Names(TOKENIZER))
        return [len(letters(row)) for row in chunks]

    near = 75 - BACKTRACK + 1  # the comma's index is 75 − 20
    assert lengths(near) == [near, 75, 5]
    assert lengths(near - 1) == [75, near - 1 + 80 - 75]


def test_break_fills_a_chunk() -> None:
    assert [letters(row) for row in rows("ab BREAK cd")] == ["ab", "cd"]
    assert [letters(row) for row in rows("BREAK ab")] == ["", "ab"]
    assert [letters(row) for row in rows("ab BREAK BREAK cd")] == ["ab", "", "cd"]
    assert [letters(row) for row in rows("ab BREAK")] == ["ab"]
    assert [letters(row) for row in rows("")] == [""]


def test_weights_stand_beside_their_tokens() -> None:
    (row,) = rows("a (bc:1.5) [d]")
    expected = [1.0, 1.0, 1.5, 1.5, 1 / 1.1]
    assert row.weights == pytest.approx(expected + [1.0] * (TEXT_LENGTH - len(expected)))


def test_vectors_replace_the_tokens_of_a_name() -> None:
    style, longer = torch.ones(3, 32), torch.zeros(2, 32)
    chunks = rows("a xy b xyz", [("xy", style), ("xyz", longer)])
    assert [(index, len(v)) for index, v in chunks[0].vectors] == [(2, 3), (6, 2)]
    assert chunks[0].vectors[1][1] is longer  # the longest name that fits
    # a name within a word is none, and ComfyUI's way of writing one is known
    assert not rows("axyb", [("xy", style)])[0].vectors
    assert rows("embedding:xy", [("xy", style)])[0].vectors[0][0] == 1


def test_vectors_are_never_parted_by_a_cut() -> None:
    style = torch.ones(4, 32)
    first, second = rows("a" * (ROOM - 2) + " xy", [("xy", style)])
    assert not first.vectors and [index for index, _ in second.vectors] == [1]
    # behind a comma they move with their tokens
    first, second = rows("aaaaa, xy bbbbbbbbb", [("xy", style)])
    assert not first.vectors and [index for index, _ in second.vectors] == [1]
    assert second.ids[5:14] != [0] * 9


def test_endless_texts_are_cut_with_a_note() -> None:
    with pytest.warns(UserWarning, match=f"{MOST_CHUNKS * ROOM} tokens that are read"):
        assert len(rows("a" * (ROOM * (MOST_CHUNKS + 1)))) == MOST_CHUNKS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(rows("a" * (ROOM * MOST_CHUNKS))) == MOST_CHUNKS
