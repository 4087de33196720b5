"""The small languages inside one word of the command line: NAME=PICTURE, FILE:0.8, NAME=VALUE.

Names and paths may hold the signs that part them (`epoch=22-step=5335.ckpt`, `C:\\models\\x`).
So a word is not cut at its first sign: of all ways to cut it, what exists decides. Where two ways
are left, the answer says so, and the caller tells the user.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MOST_DIGITS = 30  # of a weight or a parameter; more is a mistake, and slow to read


@dataclass(frozen=True)
class Cut:
    """One way to read `LEFT sign RIGHT`; `rivals`: other ways that were as good."""

    left: str
    sign: str
    right: str
    rivals: tuple[str, ...] = ()


def expand(path: str) -> str:
    """`~` and `~name` → the home folder, as a shell does at the beginning of a word."""
    return os.path.expanduser(path)


def exists(path: str) -> bool:
    """Whether there is a file or folder of that name; False for what no system takes as a name."""
    try:
        return os.path.exists(expand(path))
    except ValueError:  # a NUL character
        return False


Knows = Callable[[str], bool]


def cut(text: str, signs: str, is_left: Knows, is_right: Knows) -> Cut | None:
    """Part a word at one of its signs; None where nothing would be left on one side.

    `is_left` and `is_right` say whether something of that name is there. In this order: both sides
    are there; the left one; the right one; else the first sign, colons of drives (`C:\\`) and
    addresses (`https://`) left out. Of several where the left side is there, the longest left side
    wins; of several where the right one is, the longest right side.
    """
    ways = _ways(text, signs)
    left = [way for _, way in ways if is_left(way.left)]
    right = [way for _, way in ways if is_right(way.right)]
    both = [way for way in left if way in right]
    for candidates, index in ((both, -1), (left, -1), (right, 0)):
        if candidates:
            return _with_rivals(candidates, index)
    plain = [way for i, way in ways if not _is_inner_colon(text, i)]
    return next(iter([*plain, *(way for _, way in ways)]), None)


def _ways(text: str, signs: str) -> list[tuple[int, Cut]]:
    """Every place of a sign with something on both sides, and what would stand there."""
    places = [i for i, sign in enumerate(text) if sign in signs]
    cuts = [(i, Cut(text[:i].strip(), text[i], text[i + 1 :].strip())) for i in places]
    return [(i, way) for i, way in cuts if way.left and way.right]


def _with_rivals(candidates: Sequence[Cut], index: int) -> Cut:
    chosen = candidates[index]
    others = tuple(f"{way.left} {way.sign} {way.right}" for way in candidates if way is not chosen)
    return Cut(chosen.left, chosen.sign, chosen.right, others)


def _is_inner_colon(text: str, index: int) -> bool:
    """Whether the sign at a place is the colon of a drive or of an address."""
    if text[index] != ":":
        return False
    before, after = text[:index], text[index + 1 : index + 3]
    address = after == "//"
    drive = after[:1] in ("\\", "/") and re.search(r"(^|[=:])[A-Za-z]$", before) is not None
    return address or drive


def number_behind(text: str) -> tuple[str, float | None, bool]:
    """`FILE:0.8` → ("FILE", 0.8, …); no number behind the last colon → (text, None, False).

    A file whose own name is the whole word wins. The third value says whether the word could be
    read in both ways because both files exist.
    """
    head, colon, tail = text.rpartition(":")
    value = number(tail)
    if not colon or not head or value is None:
        return text, None, False
    if exists(text):
        return text, None, exists(head)
    return head, value, False


def number(text: str) -> float | None:
    """A finite decimal number; None for anything else (`nan`, `0x1`, `1_000`, 5,000 digits)."""
    if len(text) > _MOST_DIGITS or not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def assignment(text: str) -> tuple[str, str] | None:
    """`NAME=VALUE` → (NAME, VALUE). A name holds no `=`, a value may. None where it is none."""
    name, equals, value = text.partition("=")
    return (name.strip(), value) if equals and name.strip() else None
