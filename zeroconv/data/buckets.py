"""Aspect-ratio buckets: shapes of about equal area, so that a picture keeps its form and a batch
has one shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from zeroconv.data.fitting import BrokenExample
from zeroconv.errors import UserError

Frame = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Buckets:
    """The shapes that pictures are cropped to: sides are multiples of `step` between `min_side` and
    `max_side`, and no shape has more pixels than `size` × `size`. A picture smaller than its shape
    keeps its size, cut to the step, in a shape of its own, and one with a side below `min_side`
    cannot be used; with `upscale` both are enlarged.
    """

    size: int
    step: int
    min_side: int
    max_side: int
    upscale: bool = False

    def __post_init__(self) -> None:
        if self.step < 1 or not self.step <= self.min_side <= self.size <= self.max_side:
            raise UserError(
                f"data.buckets: step {self.step} ≤ min_side {self.min_side} ≤ data.size "
                f"{self.size} ≤ max_side {self.max_side} must hold."
            )

    @classmethod
    def of(
        cls,
        size: int,
        scale: int = 8,
        step: int | None = None,
        min_side: int | None = None,
        max_side: int | None = None,
        upscale: bool = False,
    ) -> Buckets:
        """Where nothing is said: steps of an eighth of the size, at most 64; sides from half the
        size to twice.

        `scale`: pixels a latent, which the step must be a multiple of. Raises UserError.
        """
        step = step or min(64, max(scale, size // 8 // scale * scale))
        if step % scale:
            raise UserError(
                f"data.buckets.step is {step}; give a multiple of {scale}, the pixels a latent of "
                "the base."
            )
        return cls(size, step, min_side or max(step, size // 2), max_side or 2 * size, upscale)

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """Every shape: for each width the greatest height that keeps within the area, and the same
        on its side.
        """
        shapes = set()
        for side in range(-(-self.min_side // self.step) * self.step, self.max_side + 1, self.step):
            other = min(self.max_side, self.size**2 // side) // self.step * self.step
            if other >= self.min_side:
                shapes |= {(side, other), (other, side)}
        return tuple(sorted(shapes))

    def frame(self, width: int, height: int) -> Frame:
        """The shape for a picture: the nearest in aspect ratio. Raises BrokenExample for one that
        is too small.
        """
        ratio = math.log(width / height)
        nearest = min(self.frames, key=lambda f: (abs(math.log(f[0] / f[1]) - ratio), -f[0] * f[1]))
        if self.upscale or (nearest[0] <= width and nearest[1] <= height):
            return nearest
        natural = tuple(
            min(f, side // self.step * self.step)
            for f, side in zip(nearest, (width, height), strict=True)
        )
        if min(natural) < self.min_side:
            raise BrokenExample(
                f"the picture has {width}×{height} pixels, less than data.buckets allows without "
                f"upscale: sides of {self.min_side} or more, in steps of {self.step}."
            )
        return natural[0], natural[1]
