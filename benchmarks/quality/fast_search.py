"""Combinations of approximate modes, and which of them no other one beats."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zeroconv.errors import UserError
from zeroconv.generation.saving import EXACT, Fast, parse_fast

GRID = ("deep=1/2/3", "branch=1/2", "difference=1/2", "merge=0/0.5", "vae=full/tiny")
LOST = 1.0  # % of fidelity, the most that a preset may lose


@dataclass(frozen=True)
class Point:
    """Settings, how many times less they take, and the fidelity they lose, in % (± half of a 95%
    interval).
    """

    fast: Fast
    operations: float
    time: float
    lost: float
    half: float
    worst: str = ""


def grid(texts: Sequence[str] = GRID) -> list[Fast]:
    """ "deep=1/2" and the like → every combination but the exact one. UserError for no such
    setting.
    """
    options: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values or name in options:
            raise UserError(f"the grid has {text[:40]!r}; give NAME=VALUE/VALUE, each name once.")
        options[name] = values.split("/")
    made = [
        parse_fast(",".join(f"{k}={v}" for k, v in zip(options, chosen, strict=True)))
        for chosen in itertools.product(*options.values())
    ]
    return [fast for fast in dict.fromkeys(made) if fast != EXACT]


def front(points: Sequence[Point], gain: str) -> list[Point]:
    """Those that no other point beats: none saves as much ("operations" or "time") and loses as
    little, and one of the two more so. By what they save.
    """

    def beats(a: Point, b: Point) -> bool:
        more, less = getattr(a, gain) - getattr(b, gain), a.lost - b.lost
        return more >= 0 and less <= 0 and (more > 0 or less < 0)

    kept = [p for p in points if not any(beats(other, p) for other in points)]
    return sorted(kept, key=lambda p: getattr(p, gain))


def rows(points: Sequence[Point]) -> list[list[Any]]:
    """A table of both fronts, by operations."""
    fronts = {gain: front(points, gain) for gain in ("operations", "time")}
    shown = {p.fast: p for members in fronts.values() for p in members}
    return [
        [
            p.fast.words().replace(",", ", "),
            f"{p.operations:.2f}×",
            f"{p.time:.2f}×",
            f"{p.lost:.1f} ± {p.half:.1f}",
            p.worst,
            ", ".join(gain for gain, members in fronts.items() if p in members),
        ]
        for p in sorted(shown.values(), key=lambda p: p.operations)
    ]


def best(points: Sequence[Point], gain: str = "operations") -> Mapping[str, Any]:
    """The settings that save most and lose at most `LOST` on average, as presets.json has them; an
    empty mapping where all lose more.
    """
    good = [p for p in points if p.lost <= LOST]
    if not good:
        return {}
    chosen = vars(max(good, key=lambda p: getattr(p, gain)).fast)
    return {name: value for name, value in chosen.items() if value != getattr(EXACT, name)}
