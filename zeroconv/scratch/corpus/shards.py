"""Shards on disk: pictures, or their moments at two sizes, and the captions of each picture.

The captions are written last, so a shard exists once its JSON does, and a training can start on the
first shards while others are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zeroconv.files import atomic_write

SIZES = (64, 128)  # pixels a side; 8 and 16 latents
PIXELS = "pixels"  # the array of the pictures themselves


@dataclass
class Shard:
    """One finished shard; the arrays stay on disk until they are asked for."""

    name: str
    arrays: dict[int | str, np.ndarray]  # see `save_shard`
    captions: list[list[str]]  # several a picture

    @property
    def kind(self) -> str:
        return self.name.split("-", 1)[0]

    def __len__(self) -> int:
        return len(self.captions)


def has_shard(folder: Path, name: str) -> bool:
    return (folder / f"{name}.json").exists()


def save_shard(
    folder: Path, name: str, arrays: Mapping[Any, np.ndarray], captions: list[list[str]]
) -> None:
    """Write a shard. `arrays`: pixels a side → moments (N, 2C, side/8, side/8) float16, and
    `PIXELS` → pictures (N, side, side, 3) uint8; some of them.

    Raises OSError where the disk is full; nothing half-written stays.
    """
    folder.mkdir(parents=True, exist_ok=True)

    for key, array in arrays.items():
        with atomic_write(folder / f"{name}-{key}.npy") as path, open(path, "wb") as file:
            np.save(file, array)

    with atomic_write(folder / f"{name}.json") as path:
        path.write_text(json.dumps(captions), encoding="utf-8")


def load_shard(folder: Path, name: str, keys: Sequence[int | str] = SIZES) -> Shard:
    """A finished shard, its arrays memory-mapped. Raises FileNotFoundError where it is missing."""
    captions = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    arrays = {key: np.load(folder / f"{name}-{key}.npy", mmap_mode="r") for key in keys}

    return Shard(name, arrays, captions)


def shard_names(folder: Path, split: str = "train") -> list[str]:
    """The finished shards of a split, by kind and number."""
    return sorted(path.stem for path in folder.glob(f"*-{split}-*.json"))
