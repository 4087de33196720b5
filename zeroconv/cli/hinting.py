"""The hints of controls, from their pictures: kept in another picture, drawn, or finished."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageOps

from zeroconv.cli.controls import ControlSpec, condition_of, known_condition, named_condition
from zeroconv.cli.making import of_pictures
from zeroconv.conditions.openpose import is_openpose
from zeroconv.pictures import (
    Source,
    fit_into,
    load,
    open_mask,
    open_picture,
    opened_hint,
    resize_mode,
)


def draw_hint(
    condition: str, picture: Source, size: tuple[int, int], resize: str | None = None
) -> Image.Image:
    """Draw a hint at the size of the pictures to come: bring the picture there, then annotate.

    Drawing first and shrinking afterwards would give lines thinner than the control ever saw.
    resize: "crop" (also None), "stretch", or "fill", where the hint's border is continued.
    """
    from zeroconv.annotators import annotate
    from zeroconv.conditions import brings_hole, known, open_hint, resize_hint
    from zeroconv.conditions.openpose import is_openpose

    if is_openpose(picture):
        return annotate(condition, picture)
    mode = resize_mode(resize or "crop")
    if brings_hole(picture, condition):
        return resize_hint(open_hint(picture, condition), size, "nearest", mode)
    if mode == "crop":
        picture = ImageOps.fit(open_picture(picture), size, method=Image.Resampling.LANCZOS)
        return annotate(condition, picture)

    picture = open_picture(picture)
    inner = fit_into(picture.size, size, mode).size
    hint = annotate(condition, picture.resize(inner, Image.Resampling.LANCZOS))
    entry = known(condition)
    return resize_hint(hint, size, None if entry is None else entry.resize, mode)


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
