"""The hints of controls, from their pictures: kept in another picture, drawn, or finished."""

from __future__ import annotations

from typing import Any

from PIL import Image

from zeroconv.cli.generate.controls import (
    ControlSpec,
    condition_of,
    known_condition,
    named_condition,
)
from zeroconv.cli.generate.making import of_pictures
from zeroconv.conditions.openpose import is_openpose
from zeroconv.pictures import (
    Source,
    load,
    open_mask,
    opened_hint,
)


def draw_hint(
    condition: str, picture: Source, size: tuple[int, int], resize: str | None = None
) -> Image.Image:
    """`annotators.drawing.draw_hint`, which loads networks' code."""
    from zeroconv.annotators.drawing import draw_hint as draw

    return draw(condition, picture, size, resize)


def open_source(spec: ControlSpec) -> Any:
    """The picture of a control: kept in another, else its file."""
    if spec.kept is not None:
        return spec.kept
    with of_pictures():
        return spec.picture if is_openpose(spec.picture) else load(spec.picture)


def open_spec_mask(spec: ControlSpec) -> Image.Image | None:
    source = spec.mask if spec.kept_mask is None else spec.kept_mask
    with of_pictures():
        return None if source is None else open_mask(source)


def hint_of(spec: ControlSpec, picture: Any, net: Any, size: tuple[int, int]) -> Image.Image:
    """The hint of a control: kept, drawn, or finished. Raises BadPicture."""
    from zeroconv.conditions import hint_rule, open_hint

    condition = known_condition(named_condition(net) or spec.name)
    if spec.kept is not None:
        return opened_hint(spec.kept, hint_rule(condition))
    drawn = condition_of(spec, net) if spec.draw else ""
    with of_pictures():
        if spec.draw:
            return draw_hint(drawn, picture, size, spec.resize)
        return open_hint(picture, condition)
