"""The signs of a prompt: texts, brackets with their partners, and BREAK."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

_SIGN = re.compile(
    r"""
    (?P<escape> \\[()\[\]\\] )
  | (?P<slash>  \\ )
  | (?P<weight> :\s*(?P<number>[+-]?[.0-9]+)\s*\) )
  | (?P<bracket> [()\[\]] )
  | [^\\()\[\]:]+ | :
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")
_WHEN = re.compile(r":\s*[0-9.]+\s*\Z")  # how [from:to:when] and [to:when] end
# what looks like a weight at the end of (…) and is none: a decimal comma, an exponent, two weights
_LIKE_WEIGHT = re.compile(r":\s*[+-]?(?:[0-9.]*[0-9][^\s:]*|nan|inf\w*)\s*\Z", re.IGNORECASE)
_TAIL = 32  # characters in which it is looked for


@dataclass
class Sign:
    """One sign. `close` is `)`, `]` or a weight with its bracket, such as `:1.2)`."""

    kind: Literal["text", "break", "open", "close"]
    text: str
    weight: float | None = None  # of a pair of round brackets, if one is written


def finite(number: str) -> float | None:
    """A number that a prompt writes, such as 1.2 or -.5; None for what is none."""
    try:
        value = float(number)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def signs(text: str, notes: list[str]) -> Iterator[Sign]:
    """Cut a text into its signs, brackets still without partners. Notes say what is dropped."""
    for match in _SIGN.finditer(text):
        sign = match.group()
        if match["escape"]:
            yield Sign("text", sign[1:])
        elif match["slash"]:
            notes.append("a single \\ is dropped, as A1111 does; write \\\\ for one")
        elif match["weight"]:
            yield from _weight(sign, match["number"], notes)
        elif match["bracket"]:
            yield Sign("open" if sign in "([" else "close", sign)
        else:
            yield from _broken(sign)


def _weight(sign: str, number: str, notes: list[str]) -> Iterator[Sign]:
    weight = finite(number)
    if weight is not None:
        yield Sign("close", sign, weight)
        return
    notes.append(f"{number[:20]!r} is no weight, so it is read as text; write (word:1.2)")
    yield Sign("text", sign[:-1])
    yield Sign("close", ")")


def _broken(text: str) -> Iterator[Sign]:
    """The text, with BREAK and the blanks around it as signs of their own."""
    parts = _BREAK.split(text)
    for index, part in enumerate(parts):
        if index:
            yield Sign("break", "BREAK")
            part = part.lstrip()
        if index < len(parts) - 1:
            part = part.rstrip()
        if part:
            yield Sign("text", part)


def pair_brackets(all_signs: Iterable[Sign], notes: list[str]) -> list[Sign]:
    """The signs, each opening round bracket with the weight that its partner brings.

    A closing bracket without a partner becomes text. So do both brackets of [from:to:when] and
    [a|b], which are not supported.
    """
    result: list[Sign] = []
    waiting: dict[str, list[_Open]] = {"(": [], "[": []}
    around: list[_Open] = []  # both kinds, those that are closed among them

    for sign in all_signs:
        if sign.kind == "close":
            partners = waiting["[" if sign.text == "]" else "("]
            if partners:
                partners.pop().close(sign, notes)
            else:
                sign.kind = "text"
                if sign.weight is not None:
                    notes.append(f"{sign.text!r} has no opening bracket, so it is read as text")
        if sign.kind == "open":
            around.append(_Open(sign))
            waiting[sign.text].append(around[-1])
        while around and around[-1].closed:
            around.pop()
        if sign.kind == "text" and around:
            around[-1].read(sign.text)
        result.append(sign)

    for left in (waiting["("] + waiting["["])[:1]:
        notes.append(
            f"{left.sign.text!r} is not closed, so its weight reaches to the end of the prompt; "
            f"close it, or write \\{left.sign.text} for the sign itself"
        )
    return result


@dataclass(eq=False)
class _Open:
    """An opening bracket that waits for its partner, and what stands directly in it."""

    sign: Sign
    tail: str = ""
    bar: bool = False
    closed: bool = False

    def read(self, text: str) -> None:
        self.tail = (self.tail + text)[-_TAIL:]
        self.bar = self.bar or "|" in text

    def close(self, sign: Sign, notes: list[str]) -> None:
        self.closed = True
        if self.sign.text == "[" and (self.bar or _WHEN.search(self.tail)):
            what = "[a|b]" if self.bar else "[from:to:when]"
            notes.append(f"{what} is not supported, so it is read as plain text, brackets too")
            self.sign.kind = sign.kind = "text"
        elif self.sign.text == "(" and not any("no weight" in note for note in notes):
            like = _LIKE_WEIGHT.search(self.tail)
            # (16:9:1.2) has a ratio in it, (word:1.1:1.2) two weights
            if like and (sign.weight is None or "." in like.group()):
                notes.append(
                    f"{like.group().strip()!r} in brackets is read as text, not as a weight; "
                    "write (word:1.2)"
                )
        self.sign.weight = sign.weight
