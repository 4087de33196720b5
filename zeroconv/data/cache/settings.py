"""What every file of the cache is given: its settings, and how the shards are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SHARD = 256  # examples at most; at 512 px 34 MB of moments, at 128 px 4 MB
FORMAT = 3  # of the shards; a change makes new ones (3: pictures read at their full range)

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class CacheSettings:
    root: Path | None = None  # None: $ZEROCONV_CACHE or ~/.cache/zeroconv
    workers: int | None = None  # processes that draw; None: one a core
    flip: bool = False  # keep the moments of mirrored pictures too
    # captions are read with A1111's weights, as prompts are; else as they stand
    caption_weights: bool = False
    batch_size: int = 8  # pictures the autoencoder takes at once
    # of `world` processes or machines that share `root`, number `rank` fills every world-th
    # shard first
    rank: int = 0
    world: int = 1
