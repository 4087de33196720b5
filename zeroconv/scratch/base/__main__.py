"""The playroom base from nothing: text encoder and UNet, at 64 pixels first and then at 128.

    python -m zeroconv.scratch.base RUN --shards SHARDS

starts, or goes on where it stopped. With `--decay 3000` the learning rate falls to zero over the
next 3000 steps, and the training ends. `--start embedded` takes the embedded base's weights, and
`--start FOLDER` those of another, in place of random ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zeroconv.scratch.base.model import TextToLatent, start_from_
from zeroconv.scratch.base.task import BaseTask
from zeroconv.scratch.embedded import PLAYROOM
from zeroconv.scratch.loop.command import run


def make_task(arguments: argparse.Namespace, **how: Any) -> BaseTask:
    """The base's task, with new weights or those of `--start`."""
    model = TextToLatent()
    if arguments.start is not None:
        folder = PLAYROOM if arguments.start == "embedded" else Path(arguments.start)
        start_from_(model, folder)

    return BaseTask(model=model, **how)


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start", metavar="FOLDER", help="a base to start from, or 'embedded'")


def main() -> None:
    run("base", __doc__ or "", make_task, options=_add_start)


if __name__ == "__main__":
    main()
