"""The playroom's reader: depth, normals, classes and people, read from a picture."""

from __future__ import annotations

from zeroconv.scratch.reader.altering import alter
from zeroconv.scratch.reader.batches import draw_batch
from zeroconv.scratch.reader.config import ReaderConfig
from zeroconv.scratch.reader.targets import losses_of, people_targets
from zeroconv.scratch.reader.training import train_reader

__all__ = [
    "ReaderConfig",
    "alter",
    "draw_batch",
    "losses_of",
    "people_targets",
    "train_reader",
]
