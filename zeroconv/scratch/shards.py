"""Shards on disk: moments at two sizes as float16 arrays and the captions of each picture.

The captions are written last, so a shard exists once its JSON does, and a training can start on the
first shards while others are drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zeroconv.files import atomic_write

SIZES = (64, 128)  # pixels a side; 8 and 16 latents


@dataclass
class Shard:
    """One finished shard; the arrays stay on disk until they are asked for."""

    name: str
    moments: dict[int, np.ndarray]  # pixels a side → (N, 2C, side/8, side/8) float16
    captions: list[list[str]]  # several a picture

    @property
    def kind(self) -> str:
        return self.name.split("-", 1)[0]

    def __len__(self) -> int:
        return len(self.captions)


def has_shard(folder: Path, name: str) -> bool:
    return (folder / f"{name}.json").exists()


def save_shard(
    folder: Path, name: str, moments: dict[int, np.ndarray], captions: list[list[str]]
) -> None:
    """Write a shard. Raises OSError where the disk is full; nothing half-written stays."""
    folder.mkdir(parents=True, exist_ok=True)

    for side, array in moments.items():
        with atomic_write(folder / f"{name}-{side}.npy") as path, open(path, "wb") as file:
            np.save(file, array)

    with atomic_write(folder / f"{name}.json") as path:
        path.write_text(json.dumps(captions), encoding="utf-8")


def load_shard(folder: Path, name: str, sizes: tuple[int, ...] = SIZES) -> Shard:
    """A finished shard, its arrays memory-mapped. Raises FileNotFoundError where it is missing."""
    captions = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    moments = {side: np.load(folder / f"{name}-{side}.npy", mmap_mode="r") for side in sizes}

    return Shard(name, moments, captions)


def shard_names(folder: Path) -> list[str]:
    """The finished shards, by kind and number."""
    return sorted(path.stem for path in folder.glob("*-train-*.json"))
