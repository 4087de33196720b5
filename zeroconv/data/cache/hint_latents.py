"""Shards of hints as latents, for controls that read hints through the base's autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from zeroconv.data.cache.kept import holds, just_written, kept
from zeroconv.data.cache.settings import CacheSettings
from zeroconv.data.storage.shards import Shard, Store, content_key

FORMAT = 1  # of the shards; a change makes new ones
Mirror = Callable[[ndarray], ndarray]


@dataclass(frozen=True)
class HintEncoder:
    """What makes latents of hints.

    key: names all that it depends on beside the hints. encode: uint8 (N, 1, 3 or 4, H, W) →
    float32 (N, C, h, w). mirror: of a condition, how its hint (H, W[, C]) looks in a mirror.
    """

    key: str
    encode: Callable[[Tensor], Tensor]
    mirror: Callable[[str | None], Mirror]


def latents_key(hints_key: str, encoder: HintEncoder, settings: CacheSettings) -> str:
    """hints_key: of the shard of hints, which names pictures, condition and size."""
    return content_key("hint latents", FORMAT, encoder.key, hints_key, settings.flip)


def hint_latents(
    root: Any,
    hints_key: str,
    shard: Shard,
    conditions: list[str | None],
    encoder: HintEncoder,
    settings: CacheSettings,
) -> Shard:
    """`latents` (N, C, h, w) float32 of a shard of hints, `blank` (1, C, h, w) of a black hint,
    and with `flip` those of the mirrored hints, `mirrored`; from the cache where they are there.

    conditions: of each hint.
    """
    store, key = Store(root, "hint_latents"), latents_key(hints_key, encoder, settings)
    known = kept(store, key, holds("latents", shard.note["keys"]))
    if known is not None:
        return known
    store.write(key, _encoded(shard, conditions, encoder, settings))
    return just_written(store, key)


def _encoded(
    shard: Shard, conditions: list[str | None], encoder: HintEncoder, settings: CacheSettings
) -> dict[str, ndarray]:
    hints = shard.arrays["hint"]

    def encoded(rows: list[ndarray]) -> ndarray:
        parts = []
        for start in range(0, len(rows), settings.batch_size):
            part = rows[start : start + settings.batch_size]
            # filled up: a convolution rounds a single picture otherwise than one among others
            part += [part[-1]] * (settings.batch_size - len(part))
            parts.append(encoder.encode(channels_first(np.stack(part))).float().cpu().numpy())
        return np.concatenate(parts)[: len(rows)]

    rows = [hints[i] for i in range(len(hints))]
    arrays = {"latents": encoded(rows), "blank": encoded([np.zeros_like(rows[0])])}
    if settings.flip:
        ways = [encoder.mirror(condition) for condition in conditions]
        arrays["mirrored"] = encoded([way(row) for way, row in zip(ways, rows, strict=True)])
    return arrays


def channels_first(hints: ndarray) -> Tensor:
    """uint8 (N, H, W) or (N, H, W, 3 or 4) → (N, 1, 3 or 4, H, W)."""
    hints = hints[:, None] if hints.ndim == 3 else hints.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(hints))
