"""A tiny base, and shards that need no renderer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zeroconv.scratch.base import BaseTask, TextToLatent
from zeroconv.scratch.corpus.shards import PIXELS, SIZES, save_shard

UNET = {
    "block_out_channels": (16, 32, 32, 32),
    "norm_num_groups": 8,
    "attention_head_dim": (1, 1, 1, 1),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}


def tiny_task(seed: int = 0, **how) -> BaseTask:
    torch.manual_seed(seed)
    return BaseTask(model=TextToLatent(UNET, TEXT), **how)


def make_shards(folder: Path, *names: str, count: int = 8) -> Path:
    """Random moments under the names given; captions tell shard and picture."""
    for name in names:
        rng = np.random.default_rng([ord(letter) for letter in name])
        moments = {}
        for side in SIZES:
            shape = (count, 16, side // 8, side // 8)
            moments[side] = rng.normal(size=shape).astype(np.float16)
            moments[side][:, 8:] = -6
        captions = [[f"a red ball {i}", f"{name} {i}", "a cube"] for i in range(count)]
        save_shard(folder, name, moments, captions)

    return folder


def make_pictures(folder: Path, *names: str, count: int = 8) -> Path:
    """Shards of pictures of coloured squares on grey, 128 pixels a side."""
    for name in names:
        rng = np.random.default_rng([ord(letter) for letter in name])
        pictures = np.full((count, 128, 128, 3), 128, np.uint8)
        for picture in pictures:
            y, x = rng.integers(0, 64, 2)
            picture[y : y + 64, x : x + 64] = rng.integers(0, 255, 3)
        captions = [[f"a red ball {i}", f"{name} {i}"] for i in range(count)]
        save_shard(folder, name, {PIXELS: pictures}, captions)

    return folder
