"""Drawing what a base learns from: shards of cached moments and captions, in an order that a
training can start on.

A shard holds 1,024 pictures of one kind. Its pictures are drawn, encoded by the embedded VAE at two
sizes and dropped: a seed draws them again. Two scene shards, then one of stickers, so that any
beginning of the list is a fair mixture.

    python -m zeroconv.scratch.drawing FOLDER --art STICKERS
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch

from zeroconv.scratch.drawing.draw import draw
from zeroconv.scratch.drawing.jobs import SHARD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--art", type=Path, required=True, help="folder of `zeroconv playroom stickers`"
    )
    parser.add_argument("--scenes", type=int, default=48 * SHARD)
    parser.add_argument("--stickers", type=int, default=24 * SHARD)
    parser.add_argument("--workers", type=int, default=1, help="processes; a shard each")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    counts = arguments.scenes, arguments.stickers
    draw(arguments.folder, arguments.art, *counts, workers=arguments.workers)


if __name__ == "__main__":
    main()
