"""Curves over steps as inline SVG: it needs no library, no script and no other file."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 680, 230, 58, 54, 26, 24
_LARGEST = 1e30
COLOURS = ("#3b76d6", "#d9662b", "#2f9e62", "#8a63c9")

Point = tuple[float, Any]  # step, value; None and NaN: not measured


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[Point]
    band: Sequence[tuple[Any, Any]] = ()  # low and high of every point: its interval
    faint: bool = False  # drawn behind the others, without name or end


@dataclass(frozen=True)
class Frame:
    """Which steps and values are seen, and where they stand."""

    x0: float
    x1: float
    y0: float
    y1: float

    @classmethod
    def of(cls, curves: Sequence[Curve], zero: bool) -> Frame:
        xs = [x for curve in curves for x, _ in curve.points]
        ys = [y for curve in curves for _, y in curve.points] + [
            y for c in curves for pair in c.band for y in pair
        ]
        low, high = min(ys + [0.0] * zero), max(ys + [0.0] * zero)
        space = (high - low) * 0.05 or abs(high) * 0.05 or 1e-6
        return cls(min(xs), max(max(xs), min(xs) + 1), low - space * (low != 0), high + space)

    def at(self, x: float, y: float) -> str:
        across = LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)
        down = TOP + (1 - (y - self.y0) / (self.y1 - self.y0)) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f},{down:.1f}"


def chart(
    curves: Sequence[Curve], marks: Sequence[float] = (), mark: str = "", zero: bool = False
) -> str:
    """Lines with their intervals, both axes with round numbers, a dashed line named `mark` at every
    one of `marks`.

    `zero`: the axis of values shows 0.
    """
    curves = [curve for curve in map(_drawable, curves) if curve.points]
    marks = [at for at in marks if _is_number(at)]
    if sum(len(curve.points) for curve in curves) < 2:
        return "<p>Not measured often enough for a curve.</p>"
    frame = Frame.of(curves, zero)
    drawn = [_axes(frame)]
    named = [curve for curve in curves if not curve.faint]
    for curve in curves:
        colour = COLOURS[(named.index(curve) if curve in named else 0) % len(COLOURS)]
        drawn.append(_curve(curve, frame, colour))
    for at in marks:
        x = frame.at(min(max(at, frame.x0), frame.x1), frame.y0).partition(",")[0]
        drawn.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="currentColor" '
            f'stroke-dasharray="4 3"/><text x="{float(x) + 4:.1f}" '
            f'y="{TOP + 10}">{html.escape(mark)}</text>'
        )
    drawn.append(_legend(named))
    names = html.escape(", ".join(curve.name for curve in named))
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{names}">'
    return f"{head}{''.join(drawn)}</svg>"


def _drawable(curve: Curve) -> Curve:
    """The curve without points that are no numbers, or too large to be drawn."""
    bands: list[Any] = list(curve.band) or [()] * len(curve.points)
    kept = [
        (point, band)
        for point, band in zip(curve.points, bands, strict=True)
        if all(map(_is_number, point))
    ]
    # an interval that is not known has no width
    band = [pair if all(map(_is_number, pair)) else (at[1], at[1]) for at, pair in kept if pair]
    return replace(curve, points=[point for point, _ in kept], band=band)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and abs(value) < _LARGEST


def _curve(curve: Curve, frame: Frame, colour: str) -> str:
    parts = []
    if curve.band:
        upper = [
            frame.at(x, high) for (x, _), (_, high) in zip(curve.points, curve.band, strict=True)
        ]
        lower = [
            frame.at(x, low) for (x, _), (low, _) in zip(curve.points, curve.band, strict=True)
        ]
        parts.append(
            f'<polygon fill="{colour}" opacity=".18" points="{" ".join([*upper, *lower[::-1]])}"/>'
        )
    line = " ".join(frame.at(x, y) for x, y in curve.points)
    look = 'stroke-width="1" opacity=".35"' if curve.faint else 'stroke-width="1.8"'
    parts.append(f'<polyline fill="none" stroke="{colour}" {look} points="{line}"/>')
    if len(curve.points) <= 40 and not curve.faint:  # so few that each should be seen
        places = (frame.at(x, y).split(",") for x, y in curve.points)
        parts += [f'<circle cx="{x}" cy="{y}" r="2.2" fill="{colour}"/>' for x, y in places]
    return "".join(parts)


def _axes(frame: Frame) -> str:
    parts = []
    for y in ticks(frame.y0, frame.y1, 4):
        down = float(frame.at(frame.x0, y).partition(",")[2])
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down}" y2="{down}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{_number(y)}</text>'
        )
    for x in ticks(frame.x0, frame.x1, 6):
        across = frame.at(x, frame.y0).partition(",")[0]
        parts.append(
            f'<text x="{across}" y="{HEIGHT - 8}" text-anchor="middle">{_number(x)}</text>'
        )
    parts.append(f'<text x="{WIDTH - 2}" y="{HEIGHT - 8}" text-anchor="end">step</text>')
    return "".join(parts)


def _legend(curves: Sequence[Curve]) -> str:
    """Name and last value of each curve, in its colour, above the frame."""
    parts, across = [], float(LEFT)
    for curve, colour in zip(curves, COLOURS * len(curves), strict=False):
        text = f"{curve.name} {_number(curve.points[-1][1], 3)}"
        parts.append(
            f'<text x="{across:.0f}" y="14" '
            f'style="fill:{colour};font-weight:600">{html.escape(text)}</text>'
        )
        across += 7 * len(text) + 18
    return "".join(parts)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two values, some `about` of them: steps of 1, 2 or 5 times a power of
    ten.
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float, digits: int = 4) -> str:
    return (
        "0" if abs(value) < 1e-12 else f"{value:.{digits}g}".replace("e-0", "e-").replace("-", "−")
    )


def smooth(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """Means over the last `share` of the points before each, itself included; the points where they
    are few.
    """
    window = max(1, round(len(points) * share))
    means, total = [], 0.0
    for i, (x, y) in enumerate(points):
        total += y - (points[i - window][1] if i >= window else 0.0)
        means.append((x, total / min(window, i + 1)))
    return means
