"""A hint at the size of the pictures to come, drawn from a picture of any size."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageOps

from zeroconv.annotators import annotate
from zeroconv.conditions import brings_hole, known, open_hint, resize_hint
from zeroconv.conditions.openpose import is_openpose
from zeroconv.pictures import Source, fit_into, open_picture, resize_mode


def draw_hint(
    condition: str,
    picture: Source,
    size: tuple[int, int],
    resize: str | None = None,
    **params: Any,
) -> Image.Image:
    """Draw a hint at the size of the pictures to come: bring the picture there, then annotate.

    Drawing first and shrinking afterwards would give lines thinner than the control ever saw.
    resize: "crop" (also None), "stretch", or "fill", where the hint's border is continued. params:
    of the condition, as `annotate` takes them.
    """
    if is_openpose(picture):
        return annotate(condition, picture, **params)
    mode = resize_mode(resize or "crop")
    if brings_hole(picture, condition):
        return resize_hint(open_hint(picture, condition), size, "nearest", mode)
    if mode == "crop":
        picture = ImageOps.fit(open_picture(picture), size, method=Image.Resampling.LANCZOS)
        return annotate(condition, picture, **params)

    picture = open_picture(picture)
    inner = fit_into(picture.size, size, mode).size
    hint = annotate(condition, picture.resize(inner, Image.Resampling.LANCZOS), **params)
    entry = known(condition)
    return resize_hint(hint, size, None if entry is None else entry.resize, mode)
