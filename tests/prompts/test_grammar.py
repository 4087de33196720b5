"""A1111's prompts: what its own reader gives, and that any text can be read and written."""

from __future__ import annotations

import itertools
import math
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zeroconv.prompts import LoraTag, Prompt, Span, loras_of, parse, plain, write
from zeroconv.prompts.grammar import STRONGEST

WORDS = [*"()[]:\\|<>=., \n", "BREAK", "AND", "lora", "1.2", "-.5", "a", "9" * 30, "é"]
SIGNS = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


def spans(text: str) -> list[tuple[str, float]]:
    """The spans of a prompt without BREAK."""
    (section,) = parse(text).sections
    return [(span.text, round(span.weight, 6)) for span in section]


# the examples that A1111's own reader documents
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_parse_prompt_gives_a1111_s_examples(text: str, expected: list[tuple[str, float]]) -> None:
    assert spans(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a:1.2)", [("a", 1.2)]),
        ("(a : 1.2 )", [("a ", 1.2)]),
        ("(a:-.5)", [("a", -0.5)]),
        ("(a:0)b", [("a", 0.0), ("b", 1.0)]),
        ("a:1.2", [("a:1.2", 1.0)]),
        ("a:1.2)", [("a:1.2)", 1.0)]),
        ("[a]", [("a", round(1 / 1.1, 6))]),
        ("[[a]]", [("a", round(1 / 1.21, 6))]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", round(1 / 1.1, 6))]),
        (":) :(", [(":) :", 1.0)]),
        ("()", []),
        ("", []),
        (r"\\", [("\\", 1.0)]),
        ("a\\b", [("ab", 1.0)]),
    ],
)
def test_parse_prompt_reads_brackets(text: str, expected: list[tuple[str, float]]) -> None:
    assert spans(text) == expected


def test_parse_prompt_parts_sections_at_break() -> None:
    assert parse("a  BREAK\n(b BREAK c)").sections == (
        (Span("a"),),
        (Span("b", 1.1),),
        (Span("c", 1.1),),
    )
    assert parse("BREAKFAST").sections == ((Span("BREAKFAST"),),)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<lora:a>", LoraTag("a")),
        ("<lora:a:0.5>", LoraTag("a", 0.5, 0.5)),
        ("<lora:a:0.5:0.7>", LoraTag("a", 0.7, 0.5)),
        ("<lyco:a b-1.2:unet=0.3>", LoraTag("a b-1.2", 0.3, 1.0)),
    ],
)
def test_parse_prompt_takes_lora_tags_out(text: str, tag: LoraTag) -> None:
    prompt = parse(f"(x){text}y")
    assert prompt.loras == loras_of(text) == (tag,)
    assert prompt.text == "xy" and not prompt.notes


@pytest.mark.parametrize(
    ("text", "words", "read"),
    [
        ("[cat:dog:0.5]", r"\[from:to:when\] is not supported", "[cat:dog:0.5]"),
        ("[cat::0.5]", r"\[from:to:when\]", "[cat::0.5]"),
        ("[a|b]", r"\[a\|b\] is not supported", "[a|b]"),
        ("a AND b", "AND is read as a word", "a AND b"),
        ("<hypernet:x:1>", "is no <lora", "<hypernet:x:1>"),
        ("<lora:x:strong>", "is no <lora", "<lora:x:strong>"),
        ("(a:1.2.3)", "is no weight", "a:1.2.3"),
        ("(a:1,5)", "not as a weight", "a:1,5"),
        ("a:1.2)", "no opening bracket", "a:1.2)"),
        ("<lora:>", "is no <lora", "<lora:>"),
        ("<LoRA:x:1 a", "not closed by >", "<LoRA:x:1 a"),
        ("<lora:x:1 <lora:y:1>a", "not closed by >", "<lora:x:1 a"),
        ("(a:1e5)", "not as a weight", "a:1e5"),
        ("(a:nan)", "not as a weight", "a:nan"),
        ("(a:1.2:1.3)", "not as a weight", "a:1.2"),
        ("a\\b", "is dropped", "ab"),
        ("(a", "is not closed", "a"),
        ("(a:500)", "beyond ±100", "a"),
    ],
)
def test_parse_prompt_notes_what_is_read_otherwise(text: str, words: str, read: str) -> None:
    prompt = parse(text)
    assert prompt.text == read
    (note,) = prompt.notes
    assert re.search(words, note)


@pytest.mark.parametrize(
    "text", ["(time: noon)", "(a: b)", "(16:9:1.2) a", "at 12:30", "(a:b:1.1)"]
)
def test_parse_prompt_takes_a_colon_before_words_for_text(text: str) -> None:
    assert not parse(text).notes


def test_parse_prompt_keeps_weights_inside_of_a_schedule() -> None:
    assert spans("[(cat:1.2):dog:0.5]") == [("[", 1.0), ("cat", 1.2), (":dog:0.5]", 1.0)]


@settings(max_examples=200, deadline=None)
@given(st.one_of(SIGNS, st.text(max_size=60)))
@example("(BRE)(AK)")
@example("BREAK()  a")
@example("<\\lora:a>")
@example("(" * 500 + "a")
def test_parse_prompt_reads_any_text_and_write_gives_it_back(text: str) -> None:
    prompt = parse(text)
    for section in prompt.sections:
        assert all(math.isfinite(span.weight) for span in section)
        assert all(abs(span.weight) <= STRONGEST and span.text for span in section)
        pairs = itertools.pairwise(section)
        assert all(left.weight != right.weight for left, right in pairs)
    assert parse(write(prompt)) == prompt


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_write_prompt_escapes_a_plain_text(text: str) -> None:
    assert parse(write(plain(text))) == plain(text)


@pytest.mark.parametrize("piece", ["(", "(a", "[a)", "([", "BREAK ", ": ", "<lora:", "\\(", " "])
def test_parse_prompt_takes_time_in_proportion(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    began = time.perf_counter()
    assert isinstance(parse(text), Prompt)
    assert time.perf_counter() - began < 10  # a quadratic reader takes a minute
