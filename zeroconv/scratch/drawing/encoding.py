"""Pictures as moments of an autoencoder's latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from zeroconv.scratch.corpus.shards import (
    PIXELS,
    SIZES,
    has_shard,
    load_shard,
    save_shard,
    shard_names,
)

VAE_BATCH = 16


@torch.no_grad()
def encode(vae: Any, pictures: np.ndarray, size: int) -> np.ndarray:
    """Moments (N, 2C, size/8, size/8) float16 of pictures (N, H, W, 3) uint8, shrunk by area where
    they are larger.
    """
    if pictures.shape[1] != size:
        shrunk = [cv2.resize(one, (size, size), interpolation=cv2.INTER_AREA) for one in pictures]
        pictures = np.stack(shrunk)

    parts = []
    for start in range(0, len(pictures), VAE_BATCH):
        x = torch.from_numpy(pictures[start : start + VAE_BATCH]).permute(0, 3, 1, 2)
        x = x.float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)
        parts.append(_moments(vae, x))

    return torch.cat(parts).half().numpy()


def _moments(vae: Any, x: Tensor) -> Tensor:
    return vae.encode(x).latent_dist.parameters.contiguous()


def moments_of(vae: Any, pictures: np.ndarray) -> dict[int, np.ndarray]:
    """`encode` at each of `SIZES`."""
    return {side: encode(vae, pictures, side) for side in SIZES}


def encode_shards(pictures: Path, folder: Path, vae: Any) -> None:
    """The shards of pictures as shards of moments under the same names; those there are stay."""
    for name in shard_names(pictures):
        if has_shard(folder, name):
            continue
        shard = load_shard(pictures, name, [PIXELS])
        save_shard(folder, name, moments_of(vae, np.array(shard.arrays[PIXELS])), shard.captions)
        print(f"moments of {name}", flush=True)
