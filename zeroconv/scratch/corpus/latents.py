"""The inputs of each step of a base's training: a batch of cached latents, noised by the base's
task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from zeroconv.scratch.corpus.batch import Batch, Mixture
from zeroconv.scratch.corpus.corpus import Corpus
from zeroconv.scratch.corpus.journal import Journal
from zeroconv.scratch.text.writers import Writer


class Noising(Protocol):
    """What a base brings along for its inputs."""

    writers: list[Writer]  # one for each text encoder

    def draw(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, ...]:
        """Everything random of a step, as tensors that the task's loss takes."""
        ...


class Sides(Protocol):
    """Which pictures a step sees."""

    def side(self, step: int, seconds: float) -> int:
        """Pixels a side."""
        ...


class Latents:
    """(steps done, seconds) → what `task.loss` takes; batches and noise are functions of the step.

    `journal` is the file that keeps which shards of the folder a step sees. `look`: steps between
    two looks for new ones. `hold`: sizes that stay in memory; else one at a time.
    """

    def __init__(
        self,
        task: Noising,
        shards: Path,
        journal: Path,
        sides: Sides,
        mixture: Mixture,
        *,
        seed: int = 0,
        device: str = "cpu",
        look: int = 200,
        hold: Sequence[int] = (),
        report: Callable[[str], None] = print,
    ) -> None:
        self.task, self.shards, self.sides, self.mixture = task, shards, sides, mixture
        self.seed, self.device, self.look, self.hold = seed, device, look, tuple(hold)
        self.journal, self.report = Journal(journal, shards), report
        self.corpus: Corpus | None = None

    def __call__(self, step: int, seconds: float) -> tuple[Tensor, ...]:
        side = self.sides.side(step, seconds)
        batch = self.corpus_of(step, side).batch(step, side)

        return self.task.draw(batch, self.seed, step)

    def corpus_of(self, step: int, side: int) -> Corpus:
        """The pictures of a step: another size is read anew, further shards are added."""
        sides = self.hold or (side,)

        if step % self.look == 0:
            self.journal.look(step)
        if self.corpus is None or self.corpus.sides != sides:
            self.corpus = Corpus(self.shards, sides, self.task.writers, self.mixture, self.device)

        names = self.journal.names(step)
        if len(names) > len(self.corpus.names):
            self.corpus.add(names)
            size = " and ".join(map(str, sides))
            self.report(f"step {step}: {len(self.corpus):,} pictures at {size} px")

        return self.corpus
