"""One entry a condition: its names, how it is drawn, how it may be resized, how two hints of it are compared."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from zeroconv.conditions import scores
from zeroconv.errors import UserError


@dataclass(frozen=True)
class Condition:
    """What a hint of this kind is.

    draw: picture (H, W, 3) uint8 RGB → hint (H, W) or (H, W, 3) uint8; None where pixels alone do not tell.
    resize: "lines" keeps one-pixel lines when shrinking, "nearest" invents no new values, "area" averages.
    score: (hint, hint read back from a picture), both uint8 (H, W) → named figures.
    """

    name: str
    meaning: str
    draw: Callable[..., np.ndarray] | None
    score: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    resize: Literal["lines", "nearest", "area"]
    aliases: tuple[str, ...] = ()
    source: str = ""  # where a hint comes from when `draw` is None
    licence: str = "none needed: no learned weights"
    needs_weights: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)


def draw_canny(image: np.ndarray, low: float = 100, high: float = 200) -> np.ndarray:
    """Canny edges of the grey picture (paper, section 4): 0 or 255, white on black; thresholds in grey levels × 4."""
    if not 0 <= low <= high:
        raise UserError(f"canny needs 0 ≤ low ≤ high, not low={low} and high={high}.")
    return cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), low, high)


CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition(
            name="canny",
            meaning="edges, white on black",
            draw=draw_canny,
            score=scores.score_edges,
            resize="lines",
            aliases=("control_v11p_sd15_canny", "sd-controlnet-canny", "canny_edge"),
            defaults={"low": 100, "high": 200},
        ),
        Condition(
            name="depth",
            meaning="inverse depth, near is white",
            draw=None,
            score=scores.score_depth,
            resize="area",
            aliases=("control_v11f1p_sd15_depth", "sd-controlnet-depth", "depth_midas", "depth_anything", "depth_zoe"),
            source="playroom scenes bring it exactly (`zeroconv playroom render`); for photographs give a depth map",
        ),
    )
}


def find(name: str) -> Condition:
    """The condition of a name or alias, upper or lower case. Raises UserError with the nearest name."""
    wanted = name.lower()
    for condition in CONDITIONS.values():
        if wanted == condition.name or wanted in condition.aliases:
            return condition
    close = difflib.get_close_matches(wanted, CONDITIONS, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    raise UserError(f"There is no condition {name!r}; known: {', '.join(CONDITIONS)}{meant}")


def annotate(name: str, image: Image.Image, **params: Any) -> Image.Image:
    """Draw the hint of a picture: PIL in, RGB PIL of the same size out.

    Raises UserError for an unknown condition, one that cannot be drawn from pixels, or parameters out of range, and
    TypeError for a parameter that the condition does not have.
    """
    condition = find(name)
    if condition.draw is None:
        raise UserError(f"A {condition.name} hint cannot be drawn from a picture here: {condition.source}.")
    hint = condition.draw(np.asarray(image.convert("RGB")), **params)
    return Image.fromarray(hint).convert("RGB")
