"""The reader's batches: altered pictures with their truths."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zeroconv.conditions.pose import MIRRORED
from zeroconv.evaluation.reader import SIZE
from zeroconv.scratch.reader.altering import alter
from zeroconv.scratch.reader.config import ReaderConfig
from zeroconv.scratch.reader.targets import people_targets


def draw_batch(
    data: dict[str, np.ndarray], rng: np.random.Generator, config: ReaderConfig
) -> dict[str, Tensor]:
    """A batch with its truths at 128 pixels, half of it mirrored."""
    rows = rng.integers(len(data["image"]), size=config.batch_size)
    through = rng.random(len(rows)) < config.decoded
    pixels = np.where(through[:, None, None, None], data["decoded"][rows], data["image"][rows])
    maps = {name: data[name][rows].copy() for name in ("depth", "normal", "classes", "joints")}
    turn = rng.random(len(rows)) < 0.5
    pixels[turn] = pixels[turn][:, :, ::-1]
    for name in ("depth", "normal", "classes"):
        maps[name][turn] = maps[name][turn][:, :, ::-1]
    maps["normal"][turn, ..., 0] *= -1
    maps["joints"][turn] = maps["joints"][turn][:, :, list(MIRRORED)]
    maps["joints"][turn, ..., 0] = SIZE - maps["joints"][turn, ..., 0]
    centre, offsets, weights = people_targets(maps["joints"], data["people"][rows])
    return {
        "image": alter(to_tensor(pixels), rng).contiguous(memory_format=torch.channels_last),
        "inverse_depth": 1 / torch.from_numpy(maps["depth"].astype(np.float32)),
        "normal": torch.from_numpy(maps["normal"].astype(np.float32) / 127).permute(0, 3, 1, 2),
        "classes": torch.from_numpy(maps["classes"].astype(np.int64)),
        "centre": torch.from_numpy(centre),
        "joints": torch.from_numpy(offsets),
        "weights": torch.from_numpy(weights),
    }


def to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
