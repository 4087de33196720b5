"""What SDXL is told of a picture's size and crop (Podell et al. 2023, section 2.2)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from zeroconv.backbones import Backbone, is_split
from zeroconv.generation import arguments
from zeroconv.generation.hints import hint_size

_LARGEST = 16_384  # pixels


def shape_like(hint: Any, backbone: Backbone) -> tuple[int, int]:
    """The hint's aspect ratio at the model's own area, rounded to what the encoder halves
    evenly.
    """
    return of_area(*hint_size(hint), backbone)


def unit_of(backbone: Backbone) -> int:
    """Pixels of which a side is a multiple: those of a latent, or of a transformer's patch."""
    return backbone.latent_scale * (1 if is_split(backbone) else backbone.connections[0].scale)


def of_area(wide: int, high: int, backbone: Backbone, side: int | None = None) -> tuple[int, int]:
    """Height and width of a shape at the model's own area, or at that of a square of `side`,
    likewise.
    """
    unit = backbone.latent_scale * max(connection.scale for connection in backbone.connections)
    ratio, side = math.sqrt(wide / high), side or backbone.default_size
    sides = [max(unit, round(side * f / unit) * unit) for f in (1 / ratio, ratio)]
    return sides[0], sides[1]


@dataclass(frozen=True)
class Sizes:
    """SDXL's size and crop conditioning, all (height, width) or (top, left) in pixels."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


def sizes_of(
    backbone: Backbone, height: int, width: int, original_size: Any, crop: Any, target_size: Any
) -> Sizes:
    """SDXL's conditioning: what is given, else the picture's own size and no crop (diffusers)."""
    given = {"original_size": original_size, "crop": crop, "target_size": target_size}
    names = [name for name, value in given.items() if value is not None]
    if names and not getattr(backbone, "is_xl", False):
        warnings.warn(
            f"{' and '.join(names)}: read by SDXL alone, so {backbone.name} does not use it.",
            stacklevel=4,
        )
    return Sizes(
        _pair("original_size", original_size, 1) or (height, width),
        _pair("crop", crop, 0) or (0, 0),
        _pair("target_size", target_size, 1) or (height, width),
    )


def _pair(name: str, value: Any, least: int) -> tuple[int, int] | None:
    if value is None:
        return None
    what = "(top, left)" if name == "crop" else "(height, width)"
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise arguments.wrong_type(name, value, f"a pair {what} in pixels, or None")
    first, second = (
        arguments.integer(name, one, least, _LARGEST, f"pixels of {what}") for one in value
    )
    return first, second
