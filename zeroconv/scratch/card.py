"""A whole training by the clock on one graphics card: all data on the card, both passes as one
recorded graph.

    python -m zeroconv.scratch.card RUN --shards SHARDS --minutes 8
    python -m zeroconv.scratch.card RUN --shards SHARDS --minutes 8 --what flow

Pictures of 64 pixels for the first third of the time, of 128 after that; the rate falls to zero
over the last quarter. The averages at the end are the result.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from zeroconv.errors import UserError
from zeroconv.scratch.base import BaseTask
from zeroconv.scratch.corpus.batch import Mixture
from zeroconv.scratch.corpus.latents import Latents
from zeroconv.scratch.corpus.shards import SIZES
from zeroconv.scratch.flow import FlowTask, sentences_of
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.loop.gradients import Eager, Recorded
from zeroconv.scratch.loop.run import Rhythm, Run, print_line

# the loss is looked at every hundred steps, which is the only time that waits for the card
RHYTHM = Rhythm(save=float("inf"), averages=float("inf"), log=100, check=100)


def train(
    task: BaseTask | FlowTask,
    feed: Latents,
    folder: Path,
    budget: Budget,
    record: bool = False,
    **how,
) -> int:
    """Train until the time has run out and write the averages; returns the steps.

    `how` as `Run` takes it. Raises UserError where no time is left, and FloatingPointError where
    the loss is no number; then nothing is written.
    """
    if budget.seconds is not None and budget.seconds <= 0:
        raise UserError("Loading has used up the time of this training; give it more --minutes.")
    gradients = (Recorded if record else Eager)(task)

    training = Run(
        task, feed, budget, folder, feed.mixture.batch, rhythm=RHYTHM, gradients=gradients, **how
    )
    return training.go()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--what", choices=["base", "flow"], default="base")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--graphs", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()

    begun = time.monotonic()
    device, card = arguments.device, arguments.device.startswith("cuda")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # for the optimiser's products
    arguments.folder.mkdir(parents=True, exist_ok=True)

    how = {"device": device, "precision": "bfloat16" if card else "float32"}
    task: BaseTask | FlowTask
    if arguments.what == "flow":
        task = FlowTask(sentences_of(arguments.folder, arguments.shards), **how)
    else:
        task = BaseTask(**how)

    budget = Budget(arguments.rate, seconds=60 * arguments.minutes)
    mixture, journal = Mixture(batch=arguments.batch), arguments.folder / "shards.json"
    feed = Latents(
        task,
        arguments.shards,
        journal,
        budget,
        mixture,
        device=device,
        hold=SIZES,
        report=print_line,
    )
    feed.corpus_of(0, SIZES[0])

    ready = time.monotonic() - begun
    print(f"pictures on {device} after {ready:.0f} s", flush=True)
    budget = Budget(arguments.rate, seconds=60 * arguments.minutes - ready)
    feed.sides = budget
    steps = train(task, feed, arguments.folder, budget, card and arguments.graphs, device=device)
    print(f"{steps} steps, {steps * arguments.batch:,} samples", flush=True)


if __name__ == "__main__":
    main()
