"""Train a reader of another seed and width than the judge's: what `training.reward` asks.

    python -m zeroconv.scratch.reader runs/reader-second --out second.safetensors

A second call goes on where the first one ended. Afterwards it prints how well the new reader reads
held-out scenes, beside the judge.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from zeroconv.backbones import load_backbone
from zeroconv.errors import UserError
from zeroconv.evaluation.reader import ASSET, save_reader
from zeroconv.files import check_output
from zeroconv.scratch.loop.run import print_line
from zeroconv.scratch.reader.comparing import compare
from zeroconv.scratch.reader.config import ReaderConfig
from zeroconv.scratch.reader.data import FIRST
from zeroconv.scratch.reader.training import train_reader

BETWEEN = 100_000  # scenes from those of one seed to those of the next


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.out.resolve() == ASSET.resolve():
        raise UserError(f"{ASSET.name} is the judge's file; give --out another name.")
    check_output(options.out, "file", (".safetensors",))
    torch.set_num_threads(options.threads)

    config = ReaderConfig(
        width=options.width,
        first=FIRST + BETWEEN * options.seed,
        scenes=options.scenes,
        steps=options.steps,
        batch_size=options.batch,
        minutes=options.minutes,
        seed=options.seed,
    )
    reader = train_reader(options.folder, config, load_backbone("playroom"), print_line)
    save_reader(reader, options.out)

    for line in compare(options.out, options.count):
        print_line(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zeroconv.scratch.reader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument

    add("folder", type=Path, help="of the run; holds its scenes and its state")
    add("--out", type=Path, required=True, help="the file of the reader, float16")
    add("--seed", type=int, default=1, help="of weights, batches and scenes; the judge has 0")
    add("--width", type=int, default=16, help="channels of the first level; the judge has 24")
    add("--scenes", type=int, default=ReaderConfig.scenes)
    add("--steps", type=int, default=ReaderConfig.steps)
    add("--batch", type=int, default=ReaderConfig.batch_size)
    add("--minutes", type=float, help="so long instead of so many steps")
    add("--threads", type=int, default=1)
    add("--count", type=int, default=100, help="held-out scenes it is measured on")
    return parser


if __name__ == "__main__":
    main()
