"""The parameters of drawn hints: each has a range, checked in one place before anything is
drawn.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from zeroconv.errors import UserError

D = TypeVar("D", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """least ≤ value ≤ most, both finite; with `above` least < value, with `below` value < most."""

    least: float
    most: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        high = value < self.most if self.below else value <= self.most
        return high and (value > self.least if self.above else value >= self.least)

    def __str__(self) -> str:
        least = f"more than {self.least:,}" if self.above else f"{self.least:,}"
        return f"{least} to {'less than ' if self.below else ''}{self.most:,}"


SEEDS = Range(0, 2**63 - 1)


def bounded(**ranges: Range) -> Callable[[D], D]:
    """A function that draws hints, with the ranges of its parameters; it raises UserError where one
    is left, TypeError for a parameter that is no number. A parameter whose default is a whole
    number takes whole numbers.
    """

    def wrap(draw: D) -> D:
        condition = draw.__name__.removeprefix("draw_")
        signature = inspect.signature(draw)

        @wraps(draw)
        def checked(*args: Any, **params: Any) -> Any:
            given = signature.bind(*args, **params).arguments
            check(condition, {n: v for n, v in given.items() if n in ranges}, checked)
            return draw(*args, **params)

        checked.ranges = ranges  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return wrap


def ranges_of(draw: Callable[..., Any]) -> Mapping[str, Range]:
    return getattr(draw, "ranges", {})


def check(condition: str, params: Mapping[str, Any], draw: Callable[..., Any]) -> None:
    """Raise UserError for a parameter out of its range; those that the function does not have are
    passed over.
    """
    known = inspect.signature(draw).parameters

    for name, allowed in ranges_of(draw).items():
        if name not in params:
            continue
        value: Any = params[name]
        is_integer = isinstance(known[name].default, int)

        if isinstance(value, bool) or not _is_number(value):
            raise TypeError(f"{condition}'s {name} is a number, not {type(value).__name__}.")

        # NaN is in no range; what is in one is finite
        if not allowed.holds(value) or (is_integer and value != math.trunc(value)):
            kind = "a whole number" if is_integer else "a number"
            raise UserError(
                f"{condition} needs {name} as {kind} from {allowed}, not {str(value)[:40]}."
            )


def _is_number(value: Any) -> bool:
    """NumPy's are numbers too. In a function of its own, which leaves `value` Any for mypy."""
    return isinstance(value, numbers.Real)
