"""playroom-flow from nothing: a tiny transformer of the FLUX family with its two text encoders.

    python -m zeroconv.scratch.flow RUN --shards SHARDS

starts, or goes on where it stopped. Prompts are empty in a tenth, for true classifier-free
guidance; the model has no guidance embedding.
"""

from __future__ import annotations

import argparse
from typing import Any

from zeroconv.scratch.flow.task import FlowTask, sentences_of
from zeroconv.scratch.loop.command import run


def make(arguments: argparse.Namespace, **how: Any) -> FlowTask:
    return FlowTask(sentences_of(arguments.folder, arguments.shards), **how)


def main() -> None:
    run("flow", __doc__ or "", make, rate=2e-3)


if __name__ == "__main__":
    main()
