"""Shards of moments: mean and log-variance of the pictures' latents, without and with mirrors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from zeroconv.backbones import Backbone
from zeroconv.data.cache.settings import FORMAT, CacheSettings
from zeroconv.data.cache.weights import weights_key
from zeroconv.data.dataset import Dataset
from zeroconv.data.storage.shards import Rows, Shard, content_key


def moments_key(shard: Shard, dataset: Dataset, encoder: str, settings: CacheSettings) -> str:
    """The pictures' own, so that two conditions share their moments."""
    mirrors = shard.note["mirrorable"] if settings.flip else None
    return content_key(
        FORMAT, encoder, shard.note.get("frame", dataset.size), shard.note["keys"], mirrors
    )


def encode(
    backbone: Backbone, pictures: ndarray | Rows, mirrorable: list[bool], settings: CacheSettings
) -> dict[str, ndarray]:
    """`moments` (N, 2C, h, w) float32, and with `flip` those of the mirrored pictures (where
    mirroring is allowed).
    """
    arrays = {"moments": _moments(backbone, pictures, settings.batch_size)}
    if settings.flip:
        mirrored = arrays["moments"].copy()
        rows = np.flatnonzero(mirrorable)
        if len(rows):
            mirrored[rows] = _moments(backbone, pictures[rows][:, :, ::-1], settings.batch_size)
        arrays["mirrored"] = mirrored
    return arrays


def _moments(backbone: Backbone, pictures: ndarray | Rows, batch_size: int) -> ndarray:
    batches = (pictures[i : i + batch_size] for i in range(0, len(pictures), batch_size))
    parts = [backbone.encode_image(to_images(batch)).float().cpu().numpy() for batch in batches]
    return (
        np.concatenate(parts)
        if parts
        else np.zeros((0, 2 * backbone.latent_channels, 1, 1), np.float32)
    )


def to_images(pictures: ndarray) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, H, W) in [−1, 1]."""
    pixels = torch.from_numpy(np.array(pictures, order="C")).permute(0, 3, 1, 2)
    return pixels.to(torch.float32) / 127.5 - 1


def encoder_key(backbone: Any) -> str:
    """Names the autoencoder's encoder by its weights; the decoder may change without a new
    cache.
    """
    vae = backbone.vae
    parts = [part for part in (vae.encoder, getattr(vae, "quant_conv", None)) if part is not None]
    return weights_key(parts)
