"""What recipes for Stable Diffusion 1.5 take on this graphics card, beside the estimate.

python -m benchmarks.speed.memory_card [--recipes 8,12,16,24,80] [--name memory_card]

A few steps of each recipe's own trainer, random weights of full size, on cached latents and text
states that are random too; every one in a process of its own. The autoencoder and the text encoder,
which pictures on the way would need, are not there, so that they are left out of what is reckoned
as well.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.common import RESULTS, write_result
from tools.reports import ROOT, read_json

SETTINGS = ("accumulation", "optimizer", "precision", "frozen", "checkpointing", "ema_decay")
STEPS = 3


def measure(card: str) -> dict[str, Any]:
    """In this process: seconds of a step, and bytes that torch gave out and took from the card at
    the most.
    """
    from benchmarks.speed.step_workers import Ours
    from zeroconv.training.recipes.recipe import load_recipe

    training = load_recipe(ROOT / "recipes" / f"sd15-{card}gb.yaml").training
    others = {"cuda_graphs": True, **{name: getattr(training, name) for name in SETTINGS}}
    worker = Ours("sd15", "bf16", training.batch_size, 512, torch.device("cuda"), others=others)
    trainer = worker.trainer
    for _ in range(STEPS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        loss, _ = trainer._train_step([next(worker.batches) for _ in range(training.accumulation)])
        trainer.step += 1
        torch.cuda.synchronize()
    taken = {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
    }
    pictures = training.batch_size * training.accumulation
    return {"seconds": time.perf_counter() - began, "pictures": pictures, "loss": loss, **taken}


def row(card: str, measured: dict[str, Any], one: dict[str, str]) -> list[str]:
    """A recipe's: `measured` by `measure`, `one` as `benchmarks.speed.memory` has it."""
    expected = float(one["GB"]) - float(one["VAE and text"])
    taken, held = measured["allocated"] / 1e9, measured["reserved"] / 1e9
    return [
        f"sd15-{card}gb",
        f"{expected:.1f}",
        f"{taken:.1f} ({taken / expected - 1:+.0%})",
        f"{held:.1f}",
        f"{measured['seconds']:.2f}",
        f"{measured['pictures'] / measured['seconds']:.1f}",
    ]


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    if not torch.cuda.is_available():
        sys.exit(
            "zeroconv: there is no graphics card here; benchmarks.speed.memory reckons without one."
        )
    known = read_json(RESULTS / "memory.json")
    reckoned = {row[0]: dict(zip(known["columns"], row, strict=True)) for row in known["rows"]}
    rows = []
    for card in arguments.recipes.split(","):
        words = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.speed.memory_card",
            "--one",
            card,
        ]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
        if done.returncode:
            rows.append([f"sd15-{card}gb", *["failed"] * 5])
        else:
            rows.append(
                row(
                    card,
                    json.loads(done.stdout.strip().splitlines()[-1]),
                    reckoned[f"sd15-{card}gb"],
                )
            )
        columns = [
            "recipe",
            "reckoned, GB",
            "allocated, GB",
            "reserved, GB",
            "s a step",
            "pictures a second",
        ]
        command = shlex.join(["python", "-m", "benchmarks.speed.memory_card", *sys.argv[1:]])
        note = (
            f"{torch.cuda.get_device_name()}, 512 px, random weights; without autoencoder and text "
            f"encoder; the last of {STEPS} steps. Reserved: what torch took from the card, with "
            "what lies in pieces."
        )
        write_result(arguments.name, columns, rows, command, note)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", default="8,12,16,24,80", help="the cards they are for, GB")
    parser.add_argument("--name", default="memory_card", help="of the file in benchmarks/results")
    parser.add_argument("--one", help="measure this one here and print it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
