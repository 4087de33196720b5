"""How a Union control numbers the kinds of its hints.

The numbers are those of the published ones: 0 to 5 of all, 6 and 7 of ProMax alone. Names are the
model card's, those of A1111's ControlNet extension, and this project's conditions.
"""

from __future__ import annotations

from zeroconv.conditions.lookup import known
from zeroconv.errors import UserError

# number → its name here, then others; without spaces, hyphens and underscores
KINDS: dict[int, tuple[str, ...]] = {
    0: ("openpose", "pose", "dwpose", "dwopenpose"),
    1: ("depth", "depthmap"),
    2: ("scribble", "hed", "softedge", "pidi", "pidinet", "ted"),
    3: ("canny", "lineart", "animelineart", "mlsd", "lines", "hardedge"),
    4: ("normal", "normalmap", "normalbae"),
    5: ("segment", "segmentation", "seg"),
    6: ("tile", "tileblur"),
    7: ("repaint", "inpaint", "inpainting", "outpaint"),
}
_NUMBERS = {name: number for number, names in KINDS.items() for name in names}


def union_kind(name: str) -> int | None:
    """The number of a kind's name, of a condition or of a preprocessor that draws one; None for any
    other.
    """
    plain = "".join(c for c in name.lower() if c not in " -_")
    if plain in _NUMBERS:
        return _NUMBERS[plain]
    condition = known(name)
    return None if condition is None else _NUMBERS.get(condition.name)


def find_kind(kind: str | int, count: int) -> int:
    """The number of a kind, given by its name or its number, in a control of `count` kinds. Raises
    UserError.
    """
    number = kind if isinstance(kind, int) else union_kind(kind)
    if isinstance(kind, bool) or number is None:
        raise UserError(f"a Union control has no kind {kind!r}; choose one of {names(count)}.")
    if not 0 <= number < count:
        more = "; the ProMax one has 8" if count == 6 and number in KINDS else ""
        raise UserError(
            f"this Union control has {count} kinds, {names(count)}, but not {kind!r}{more}."
        )
    return number


def kind_names(count: int) -> tuple[str, ...]:
    """One name for each kind of a control of `count` kinds."""
    return tuple(KINDS[i][0] if i in KINDS else str(i) for i in range(count))


def names(count: int) -> str:
    return ", ".join(kind_names(count))
