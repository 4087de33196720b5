"""Samplers, schedules and conditions as clients list them."""

from __future__ import annotations

from functools import cache
from typing import Any

from zeroconv.conditions import CONDITIONS, Condition
from zeroconv.conditions.parameters import ranges_of
from zeroconv.errors import UserError


@cache
def samplers() -> list[dict[str, str]]:
    from zeroconv.generation.metadata.infotext import SAMPLERS as LABELS
    from zeroconv.generation.samplers.names import SAMPLERS

    return [{"name": name, "label": LABELS.get(name, name)} for name in SAMPLERS]


@cache
def schedules() -> list[dict[str, str]]:
    from zeroconv.generation.metadata.infotext import SCHEDULES as LABELS
    from zeroconv.generation.samplers.schedules import SCHEDULES

    return [{"name": name, "label": LABELS.get(name, name)} for name in SCHEDULES]


@cache
def fast_presets() -> list[dict[str, str]]:
    """settings: what a picture records of the preset."""
    from zeroconv.generation.saving import presets

    return [{"name": name, "settings": fast.words()} for name, fast in presets().items()]


def conditions() -> list[dict[str, Any]]:
    """needs: "picture" where a hint can be drawn from one here, else "drawing"."""
    return [
        {
            "name": condition.name,
            "label": condition.name.capitalize(),
            "meaning": condition.meaning,
            "needs": "picture" if can_draw(condition) else "drawing",
            "options": options_of(condition),
            "palette": palette() if condition.name == "segmentation" else None,
        }
        for condition in CONDITIONS.values()
    ]


def can_draw(condition: Condition) -> bool:
    """Whether hints of it can be drawn from pictures without another download."""
    from zeroconv.annotators.weights import find_weights

    networks = {"pose": ("posenet",), "person": ("selfie", "posenet")}
    if condition.draw is not None:
        return True
    if condition.name not in networks:
        return False
    try:
        return all(find_weights(name) for name in networks[condition.name])
    except UserError:
        return False


def options_of(condition: Condition) -> dict[str, dict[str, Any]]:
    """Parameters of `annotate`: name → default, range, whether it is a whole number."""
    ranges = {} if condition.draw is None else ranges_of(condition.draw)
    options: dict[str, dict[str, Any]] = {}
    for name, default in {**condition.defaults, **condition.settings}.items():
        bounds = ranges.get(name)
        least, most = (0, 1) if bounds is None else (bounds.least, bounds.most)
        entry = {"default": default, "min": least, "max": most}
        options[name] = {**entry, "integer": isinstance(default, int)}
    return options


def palette() -> list[dict[str, Any]]:
    """Names and colours of the playroom's classes."""
    from zeroconv.conditions.maps import PLAYROOM_COLOURS
    from zeroconv.playroom import CLASSES

    return [
        {"name": name, "colour": f"#{r:02x}{g:02x}{b:02x}"}
        for name, (r, g, b) in zip(CLASSES, PLAYROOM_COLOURS, strict=True)
    ]
