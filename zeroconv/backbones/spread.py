"""Which residual of a control is added after which block of a transformer, as data.

A control has K residuals, its base B blocks. A rule gives for each block the number of a residual,
or None where the block gets none. Nothing here knows a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from zeroconv.errors import UserError

T = TypeVar("T")
Numbers = tuple[int | None, ...]


def _identity(residuals: int, blocks: int) -> Numbers:
    _check_equal(residuals, blocks)
    return tuple(range(blocks))


def _interval(residuals: int, blocks: int) -> Numbers:
    """int(i / (B / K)): equal shares of the blocks, SD 3."""
    return tuple(int(i / (blocks / residuals)) for i in range(blocks))


def _ceil(residuals: int, blocks: int) -> Numbers:
    """i // ceil(B / K): runs of one length, the last may be shorter: FLUX, Qwen-Image."""
    length = math.ceil(blocks / residuals)
    return tuple(i // length for i in range(blocks))


def _modulo(residuals: int, blocks: int) -> Numbers:
    """i mod K: again and again in their order, FLUX of XLabs."""
    return tuple(i % residuals for i in range(blocks))


def _offset(residuals: int, blocks: int) -> Numbers:
    """Residual j after block j + 1; block 0 and those behind the last get none: Sana."""
    return tuple(i - 1 if 0 < i <= residuals else None for i in range(blocks))


def _reversed(residuals: int, blocks: int) -> Numbers:
    """The last residual first, HunyuanDiT; blocks are those that read a long skip."""
    _check_equal(residuals, blocks)
    return tuple(reversed(range(blocks)))


RULES: dict[str, Callable[[int, int], Numbers]] = {
    "identity": _identity,
    "interval": _interval,
    "ceil": _ceil,
    "modulo": _modulo,
    "offset": _offset,
    "reversed": _reversed,
}

# a name of RULES, or block → number of a residual (Z-Image)
Rule = str | Mapping[int, int]


def numbers(rule: Rule, residuals: int, blocks: int) -> Numbers:
    """For each of `blocks` blocks the number of one of `residuals` residuals, or None.

    Raises UserError for an unknown rule, and for numbers that do not fit each other.
    """
    if residuals < 1 or blocks < 1:
        raise UserError(f"{residuals} residuals cannot be spread over {blocks} blocks.")
    if not isinstance(rule, str):
        return _by_block(rule, residuals, blocks)
    if rule not in RULES:
        raise UserError(f"there is no rule {rule!r} of spreading; choose {', '.join(RULES)}.")
    if residuals > blocks - (rule == "offset"):
        raise UserError(
            f"this control has {residuals} residuals, its base only {blocks} blocks; it was made "
            "for another base."
        )
    return RULES[rule](residuals, blocks)


def spread(residuals: Sequence[T], rule: Rule, blocks: int) -> list[T | None]:
    """The residual of each block, or None."""
    chosen = numbers(rule, len(residuals), blocks)
    return [None if number is None else residuals[number] for number in chosen]


def _by_block(places: Mapping[int, int], residuals: int, blocks: int) -> Numbers:
    for block, number in places.items():
        if not 0 <= block < blocks or not 0 <= number < residuals:
            raise UserError(
                f"residual {number} cannot be added after block {block}: there are {residuals} "
                f"residuals and {blocks} blocks."
            )
    return tuple(places.get(block) for block in range(blocks))


def _check_equal(residuals: int, blocks: int) -> None:
    if residuals != blocks:
        raise UserError(
            f"this control has {residuals} residuals, its base takes {blocks}; it was made for "
            "another base."
        )
