"""When a network begins to follow its hints: a change point in the hint gain (paper, section 3.3
and figure 4).

The hint gain is near zero for a while and then leaves it within few steps, while the training loss
hardly moves. It is measured on fixed pictures, timesteps and noise, so that two measurements differ
by the network alone, and each comes with the standard error of its mean over the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Measured:
    """One measurement of the hint gain."""

    step: int
    gain: float  # mean of (loss with another's hint − loss with the true one) over the pictures
    error: float  # standard error of that mean
    loss: float  # with the true hint: the scale that a gain must be seen against

    @classmethod
    def of(cls, line: dict[str, float]) -> Measured:
        """Of what a validation measured, as the run keeps it."""
        return cls(int(line["step"]), line["gain"], line["gain_error"], line["true"])


@dataclass(frozen=True)
class Convergence:
    step: int  # where the gain left its base line, by the best fit of a bent line
    seen: int  # the measurement that settled it
    gain: float  # there
    confidence: float  # 1 − probability of such gains from a network that does not see its hint

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def detect(
    history: Sequence[Measured], sigmas: float = 4.0, share: float = 0.002, runs: int = 2
) -> Convergence | None:
    """The change point in a run's measurements, or None while there is none.

    It is settled by the first `runs` measurements in a row whose gain is `sigmas` standard errors
    above the base line and at least `share` of the loss: the first guards against noise, the second
    against a gain that is real but too small to be seen in a picture. The base line is the mean of
    the measurements before, or zero where there are none: a network at step 0 has no gain at all.
    """
    history, good = [m for m in history if math.isfinite(m.gain)], 0
    for i, now in enumerate(history):
        base = _base_line(history[: i - good])
        if now.gain - base > max(sigmas * now.error, share * now.loss):
            good += 1
        else:
            good = 0
        if good == runs:
            first = history[i - runs + 1]
            z = min((m.gain - base) / max(m.error, 1e-12) for m in history[i - runs + 1 : i + 1])
            # of one; the others are measured on the same pictures
            chance = 0.5 * math.erfc(z / math.sqrt(2))
            return Convergence(
                _bend(history[: i + 1], first.step), now.step, now.gain, 1.0 - chance
            )
    return None


def _base_line(before: Sequence[Measured]) -> float:
    """Mean gain of what came before; never below zero, so that a dip cannot make a return to zero
    look like a jump.
    """
    values = [m.gain for m in before]
    return max(0.0, float(np.mean(values[-8:]))) if values else 0.0


def _bend(history: Sequence[Measured], at_most: int) -> int:
    """The step from which a line that was flat rises best to the measurements: least squares over
    measured steps.
    """
    steps = np.array([m.step for m in history], float)
    gains = np.array([m.gain for m in history], float)
    best = (math.inf, at_most)
    for candidate in steps[:-1]:
        if candidate > at_most:
            break
        rise = np.maximum(0.0, steps - candidate)
        slope = float(rise @ gains / (rise @ rise))
        error = float(((gains - slope * rise) ** 2).sum())
        if error < best[0]:
            best = (error, int(candidate))
    return best[1]
