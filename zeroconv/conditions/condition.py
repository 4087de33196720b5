"""What a condition is: how its hints are drawn, read from files, resized, mirrored and compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy import ndarray

from zeroconv.conditions import maps
from zeroconv.pictures import HintRule

# how finished hints are opened
MAP = HintRule(ground="black")  # where nothing else is said
LINES = HintRule(ground="black", strokes=True)
PICTURE = HintRule(ground="white")
DEPTH = HintRule(ground="black", values="range")
CLASSES = HintRule(ground="black", colours=maps.known_colours, classes=maps.NUMBERED)
HOLE = HintRule(ground="white", hole=True)

NO_WEIGHTS = "none needed: no learned weights"


def plain_mirror(hint: ndarray) -> ndarray:
    return hint[:, ::-1]


def first_channel(hint: ndarray) -> ndarray:
    return hint[..., 0] if hint.ndim == 3 else hint


@dataclass(frozen=True)
class Condition:
    """What a hint of this kind is.

    draw: picture (H, W, 3) uint8 RGB → hint (H, W), (H, W, 3) or, with a hole, (H, W, 4) uint8;
    None where pixels alone do not tell, and a network (`learned`) or exact ground truth must.
    decode: hint (H, W, 3) uint8 → what `score` compares. score: (truth, read) → named figures of
    one picture, explained in `scores.METRICS`. resize: "lines" keeps one-pixel lines when
    shrinking, "nearest" invents no new values, "area" averages. mirror: the hint of the mirrored
    picture. channels: 1 grey, 3 RGB, 4 RGB with a hole. opened: what alpha and numbers of a
    finished hint mean.
    """

    name: str
    meaning: str
    draw: Callable[..., ndarray] | None
    score: Callable[[Any, Any], dict[str, Any]]
    resize: Literal["lines", "nearest", "area"]
    decode: Callable[[ndarray], Any] = first_channel
    mirror: Callable[[ndarray], ndarray] | None = plain_mirror
    channels: int = 1
    aliases: tuple[str, ...] = ()
    opened: HintRule = MAP
    source: str = ""  # where a hint comes from when `draw` is None
    licence: str = NO_WEIGHTS
    paper: bool = True  # one of the paper's nine
    # what a network may be asked for, where `draw` is None: 1 or 0
    settings: Mapping[str, int] = field(default_factory=dict)

    @property
    def needs_weights(self) -> bool:
        return self.draw is None

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters of `draw` that a user may set, and their values."""
        if self.draw is None:
            return {}
        parameters = inspect.signature(self.draw).parameters.values()
        return {p.name: p.default for p in parameters if isinstance(p.default, int | float)}
