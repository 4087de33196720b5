"""Hints drawn from pictures by zeroconv's conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zeroconv.annotators import annotate
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.resizing import with_hole
from zeroconv.errors import UserError
from zeroconv.pictures import to_numbers

READ_BY_NETWORKS = ("pose", "person")  # `zeroconv annotators NAME` fetches what reads them
NAMES = [name for name, one in CONDITIONS.items() if one.draw or name in READ_BY_NETWORKS]


class Annotate:
    """ "Draw Hint (zeroconv)". resolution: pixels of the shorter side at which the picture is read,
    0 for its own. settings: the condition's numbers, such as `low=50 high=150`. mask: of inpaint,
    white is the hole.
    """

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {"default": 0, "min": 0, "max": 4096, "step": 8}
        return {
            "required": {"image": ("IMAGE",), "condition": (NAMES, {"default": "canny"})},
            "optional": {
                "resolution": ("INT", size),
                "settings": ("STRING", {"default": ""}),
                "mask": ("MASK",),
            },
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "draw"
    CATEGORY = "zeroconv"

    def draw(
        self,
        image: Tensor,
        condition: str,
        resolution: int = 0,
        settings: str = "",
        mask: Tensor | None = None,
    ) -> tuple[Tensor]:
        """image: (N, H, W, 3) in [0, 1] → the same for hints, −1 in a hole. Raises UserError."""
        numbers: dict[str, Any] = read_settings(settings)
        hints = []
        for i, pixels in enumerate(image):
            picture = resized(to_picture(pixels), resolution)
            if condition == "inpaint":
                if mask is None:
                    raise UserError("inpaint needs a mask: connect one.")
                one = mask.reshape(-1, *mask.shape[-2:])[i % len(mask)]
                numbers["mask"] = to_picture(one).resize(picture.size, Image.Resampling.BILINEAR)
            hint = with_hole(annotate(condition, picture, **numbers))
            hints.append(torch.from_numpy(np.ascontiguousarray(to_numbers(hint))))
        return (torch.stack(hints).movedim(1, -1).float(),)


def to_picture(pixels: Tensor) -> Image.Image:
    """(H, W, 3) or (H, W) in [0, 1] → RGB or L."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().cpu().numpy())


def resized(picture: Image.Image, resolution: int) -> Image.Image:
    """With a shorter side of so many pixels; 0: as it is."""
    if not resolution:
        return picture
    factor = resolution / min(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def read_settings(text: str) -> dict[str, float]:
    """`low=50 high=150` → numbers by their names. Raises UserError."""
    numbers: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        name, equals, value = word.partition("=")
        try:
            numbers[name] = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UserError(f"settings {word[:60]!r} is no name=number, such as low=50.")
    return numbers
