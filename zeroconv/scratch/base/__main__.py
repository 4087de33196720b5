"""The playroom base from nothing: text encoder and UNet, at 64 pixels first and then at 128.

    python -m zeroconv.scratch.base RUN --shards SHARDS

starts, or goes on where it stopped. With `--decay 3000` the learning rate falls to zero over the
next 3000 steps, and the training ends.
"""

from __future__ import annotations

from zeroconv.scratch.base.task import BaseTask
from zeroconv.scratch.loop.command import run


def main() -> None:
    run("base", __doc__ or "", lambda arguments, **how: BaseTask(**how))


if __name__ == "__main__":
    main()
