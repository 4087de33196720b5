"""Conditions by their names, aliases and other programs' names."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

from zeroconv.conditions.condition import Condition
from zeroconv.conditions.names import PREPROCESSORS
from zeroconv.conditions.registry import CONDITIONS
from zeroconv.errors import UserError

# every name and alias, and those of other programs, in lower case; ours come last and win
_INDEX: dict[str, Condition] = {
    name: CONDITIONS[entry.condition]
    for name, entry in PREPROCESSORS.items()
    if entry.condition is not None
} | {
    name.lower(): condition
    for condition in CONDITIONS.values()
    for name in (condition.name, *condition.aliases)
}


def known(name: str | None) -> Condition | None:
    """The condition of a name or alias, upper or lower case; None where the registry has none."""
    return None if name is None else _INDEX.get(name.lower())


def find(name: str) -> Condition:
    """The condition of a name or alias, upper or lower case.

    Raises UserError with the nearest name, or, for a preprocessor of another program that nothing
    stands for, with what there is instead.
    """
    condition = known(name)
    if condition is not None:
        return condition
    foreign = PREPROCESSORS.get(name.lower())
    if foreign is not None:
        raise UserError(f"{name} cannot be drawn here: {foreign.note}.")
    close = difflib.get_close_matches(name.lower(), _INDEX, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    raise UserError(f"There is no condition {name!r}; known: {', '.join(CONDITIONS)}{meant}")


def to_draw(name: str, quiet: bool = False) -> tuple[Condition, dict[str, Any]]:
    """The condition that a name asks to draw, and the parameters that the name itself says.

    `openpose_full` is pose with hands and face. Where the name is another program's and promises
    more than is drawn here, a note says what is less; `quiet` leaves it out, for callers who draw
    nothing or by a network that the user named. Raises UserError, see `find`.
    """
    condition = find(name)
    foreign = PREPROCESSORS.get(name.lower())
    if foreign is None or name.lower() in CONDITIONS:
        return condition, {}
    if foreign.note and not quiet:
        warnings.warn(f"{name} is drawn as {condition.name}: {foreign.note}.", stacklevel=3)
    return condition, dict(foreign.settings)
