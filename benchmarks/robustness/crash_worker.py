"""One process of a training that `benchmarks.robustness.crash` kills.

Its words are RECIPE and NOTES. It notes which examples a step takes, before it takes the step.
A line of NOTES-RANK is `[step, [example, …]]`; every start of the run adds to the same file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from zeroconv.data.batches import Batch
from zeroconv.training import train_command
from zeroconv.training.trainer import Trainer


def main(recipe: str, notes: str) -> None:
    path, step = Path(f"{notes}-{os.environ.get('RANK', '0')}"), Trainer._train_step
    with path.open("a") as file:
        file.write("\n")  # a line that the last kill cut short ends here

    def noted(self: Trainer, micro: list[Batch]) -> tuple[float, float]:
        with path.open("a") as file:
            file.write(
                json.dumps([self.step, [i for batch in micro for i in batch.indices.tolist()]])
                + "\n"
            )
        return step(self, micro)

    Trainer._train_step = noted  # type: ignore[method-assign]
    train_command(recipe)


if __name__ == "__main__":
    main(*sys.argv[1:])
