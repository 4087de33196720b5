"""What `generate` is asked to do with a given picture, checked before anything is read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation.image.inpaint import CONTENTS, check_expand


@dataclass(frozen=True)
class ImageOptions:
    """What `generate` is asked to do with a picture; see there."""

    image: Any = None
    strength: float | None = None
    mask: Any = None
    only_masked: bool = False
    padding: int = 32
    mask_blur: float | None = None
    masked_content: str = "original"
    paste_back: bool = True
    expand: Any = None
    image_guidance: float | None = None

    def __post_init__(self) -> None:
        arguments.integer("padding", self.padding, 0, arguments.LARGEST, "pixels around the mask")
        for name in ("only_masked", "paste_back"):
            if not isinstance(getattr(self, name), bool):
                raise arguments.wrong_type(name, getattr(self, name), "True or False")
        arguments.check_name("masked_content", self.masked_content, CONTENTS)
        if self.strength is not None:
            arguments.number("strength", self.strength, 0, 1, "the share of the steps taken")
        if self.mask_blur is not None:
            arguments.number("mask_blur", self.mask_blur, 0, 1000, "pixels of blurred edge")
        if self.image_guidance is not None:
            most = arguments.STRONGEST
            arguments.number("image_guidance", self.image_guidance, -most, most, "usually 1.5")
        check_expand(self.expand)
        self._check_together()

    @property
    def masks(self) -> bool:
        """Whether a part of the picture is kept."""
        return self.mask is not None or bool(check_expand(self.expand))

    def _check_together(self) -> None:
        if self.image is None:
            usual = ImageOptions.__dataclass_fields__
            for name, entry in usual.items():
                if name != "image" and getattr(self, name) != entry.default:
                    raise UserError(f"{name} is about a given picture; give image (--image) too.")
            return
        if self.expand and not check_expand(self.expand):
            warnings.warn(
                "expand adds no pixel: without it the picture is used as it is; leave it out, or "
                "give pixels of a side.",
                stacklevel=4,
            )
        if self.padding != ImageOptions.padding and not self.only_masked:
            warnings.warn(
                "padding is about only_masked, which is not given; it is not used.", stacklevel=4
            )
        if self.masks:
            return
        for name in ("only_masked", "mask_blur"):
            if getattr(self, name):
                raise UserError(f"{name} is about a masked picture; give mask or expand too.")
        if self.masked_content != "original":
            raise UserError("masked_content is about a masked picture; give mask or expand too.")
