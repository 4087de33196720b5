"""The plan of a training: how long at which size, and the learning rate of each step; kept in the
run's folder.

The length is open. The rate rises, stays, and falls to zero over the last steps once a decay has
been asked for, so a training can go on over many sessions and be finished whenever there is time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from zeroconv.errors import UserError
from zeroconv.files import atomic_write


@dataclass
class Plan:
    """What decides a training, apart from its data."""

    first_steps: int  # at 64 pixels; all later ones at 128
    batch: int = 128
    rate: float = 2e-3
    warmup: int = 200
    seed: int = 0
    decay_from: int | None = None  # the step at which the rate begins to fall
    decay_steps: int = 0
    precision: str = "float32"
    compiled: bool = False
    threads: int = 1
    machine: str = ""  # for which precision, compiled and threads were chosen

    def side(self, step: int, seconds: float = 0.0) -> int:
        """Pixels a side of a step's pictures."""
        return 64 if step < self.first_steps else 128

    def rate_of(self, step: int, seconds: float = 0.0) -> float:
        """The learning rate of a step, counted from 0."""
        rate = self.rate * min(1.0, (step + 1) / self.warmup)
        if self.decay_from is None:
            return rate
        left = 1.0 - (step - self.decay_from) / max(1, self.decay_steps)

        return rate * min(1.0, max(0.0, left))

    def over(self, step: int, seconds: float) -> bool:
        return self.end is not None and step >= self.end

    @property
    def end(self) -> int | None:
        """The step at which the training is finished, or None while that is open."""
        return None if self.decay_from is None else self.decay_from + self.decay_steps

    def save(self, path: Path) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def load_plan(path: Path) -> Plan | None:
    """The plan of a run, or None where it has none yet. Raises UserError for a damaged file."""
    if not path.exists():
        return None
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is no plan of a training ({error}); mend it or take another folder."
        ) from error
