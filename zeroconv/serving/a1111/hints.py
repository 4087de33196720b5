"""The finished hint of a unit, and the control of ours that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zeroconv.serving.a1111.mapping import Wanted
from zeroconv.serving.a1111.modules import Module
from zeroconv.serving.a1111.units import Asked, hint_of
from zeroconv.serving.generation import Unit

NETWORKS = ("pose", "person")  # conditions that a network reads from a picture


def of_network(module: Module) -> bool:
    return module.condition in NETWORKS


def unit_with_hint(
    asked: Asked, wanted: Wanted, facts: Mapping[str, Any], default: int, most: int
) -> Unit:
    """facts: of the control, from the catalogue. default: the resolution at which modules read
    where none is asked for. most: pixels that are read. Raises UserError.
    """
    hint = hint_of(
        with_start(asked, wanted), wanted.hint_size, facts.get("condition"), default, most
    )
    return Unit(
        control=asked.control,
        hint=hint,
        scale=asked.weight,
        start=asked.start,
        end=asked.end,
        # "Balanced" is the guidance of the request, which baselines take too
        mode=None if asked.mode == "balanced" else asked.mode,
        region=asked.region,
        resize=asked.resize,
        kind=asked.kind if facts.get("union_kinds") else None,
        passes=asked.passes,
        connection_scales=asked.connection_scales,
    )


def with_start(asked: Asked, wanted: Wanted) -> Asked:
    """With the picture and mask of img2img, where the unit has none of its own."""
    request = wanted.request
    mask = asked.mask
    if mask is None and asked.module.condition == "inpaint":
        mask = request.mask
    image = request.image if asked.image is None else asked.image
    return replace(asked, image=image, mask=mask)
