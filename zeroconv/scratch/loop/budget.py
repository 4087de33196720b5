"""A training of a set length: so many steps, or so much time."""

from __future__ import annotations

from dataclasses import dataclass

from zeroconv.scratch.corpus.shards import SIZES


@dataclass(frozen=True)
class Budget:
    """Length and learning rate. The length is `seconds` where these are given, else `steps`."""

    rate: float
    steps: int = 0
    seconds: float | None = None
    warmup: int = 100  # steps
    decay: float = 1 / 4  # share of the length, at its end, in which the rate falls to zero
    first: float = 1 / 3  # share at 64 pixels, for what is trained at two sizes

    def progress(self, step: int, seconds: float) -> float:
        """0 at the beginning, 1 and more at the end."""
        if self.seconds is not None:
            return seconds / self.seconds if self.seconds > 0 else 1.0

        return step / self.steps if self.steps > 0 else 1.0

    def rate_of(self, step: int, seconds: float) -> float:
        """The learning rate of a step, counted from 0: it rises, stays, and falls to zero."""
        left = max(0.0, 1 - self.progress(step, seconds))

        return self.rate * min(1.0, (step + 1) / self.warmup) * min(1.0, left / self.decay)

    def over(self, step: int, seconds: float) -> bool:
        return self.progress(step, seconds) >= 1

    def side(self, step: int, seconds: float) -> int:
        """Pixels a side of a step's pictures."""
        return SIZES[0] if self.progress(step, seconds) < self.first else SIZES[1]
