"""A second pass at a larger size: the first picture enlarged, noised, and generated on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation.image.latents import encoded
from zeroconv.generation.image.options import ImageOptions

UPSCALERS = ("latent", "lanczos")
_MOST = 8.0


@dataclass(frozen=True)
class Hires:
    """What `generate` is asked to do in a second pass; see there."""

    factor: float | None = None
    strength: float = 0.7
    steps: int | None = None
    upscaler: str = "latent"

    def __post_init__(self) -> None:
        arguments.check_name("hires_upscaler", self.upscaler, UPSCALERS)
        arguments.number("hires_strength", self.strength, 0, 1, "the share of the steps taken")
        if self.steps is not None:
            most = arguments.MOST_STEPS
            arguments.integer("hires_steps", self.steps, 1, most, "of the second pass")
        if self.factor is None:
            usual = self.__dataclass_fields__
            if any(getattr(self, name) != entry.default for name, entry in usual.items()):
                raise UserError("hires_strength, hires_steps, hires_upscaler: give hires too.")
            return
        arguments.number("hires", self.factor, 1, _MOST, "times the size; usually 1.5 to 2")

    def check(self, steps: int, image: ImageOptions, controls: Any) -> None:
        """Raise UserError where the second pass would take no step, or a part of a picture is
        masked; a note where a control is meant for a pass that there is not.
        """
        if self.factor is None:
            several = controls if isinstance(controls, list | tuple) else ()
            if any(getattr(control, "passes", "both") != "both" for control in several):
                warnings.warn(
                    "passes of a control change nothing without a second pass; give hires.",
                    stacklevel=4,
                )
            return
        if image.masks:
            raise UserError(
                "hires enlarges all of a picture, so it does not go with mask or expand; use "
                "only_masked, which generates the part at the size asked for."
            )
        if int((self.steps or steps) * self.strength) < 1:
            raise UserError(
                f"hires_strength {self.strength:g} of {self.steps or steps} steps is no step; give "
                "more of one of them."
            )

    def size(self, size: tuple[int, int], unit: int) -> tuple[int, int]:
        """Height and width of the second pass, multiples of `unit` pixels."""
        assert self.factor is not None
        high, wide = (max(unit, round(side * self.factor / unit) * unit) for side in size)
        if max(high, wide) > arguments.LARGEST:
            raise UserError(
                f"hires {self.factor:g} makes {wide}×{high} pixels; {arguments.LARGEST} a side are "
                "the most."
            )
        if self.factor > 1 and (high, wide) == tuple(size):
            warnings.warn(
                f"hires {self.factor:g} leaves {wide}×{high} pixels as they are, because sides are "
                f"multiples of {unit}; give more.",
                stacklevel=2,
            )
        return high, wide

    def enlarged(self, backbone: Backbone, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents (N, C, h, w) → of pictures of `size` (height, width). "latent": bilinear, as
        A1111's; "lanczos": decoded, enlarged and encoded.
        """
        scale = backbone.latent_scale
        if self.upscaler == "latent":
            small = (size[0] // scale, size[1] // scale)
            return nn.functional.interpolate(z, small, mode="bilinear", align_corners=False)
        pictures = backbone.decode_latents(z).permute(0, 2, 3, 1).cpu().numpy()
        frame = size[::-1]
        large = [cv2.resize(one, frame, interpolation=cv2.INTER_LANCZOS4) for one in pictures]
        tensors = [torch.from_numpy(np.clip(one, 0, 1)).permute(2, 0, 1) for one in large]
        return encoded(backbone, tensors)
