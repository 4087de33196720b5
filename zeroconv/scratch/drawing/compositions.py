"""Stickers on backgrounds: which one comes when, and a picture of one with its captions."""

from __future__ import annotations

from typing import Any

import numpy as np

from zeroconv.playroom import stickers


def sticker_order(start: int, count: int, total: int, seed: int) -> list[int]:
    """Positions `start … start + count` of an endless sequence of shuffled passes over `total`
    stickers.
    """
    positions = np.arange(start, start + count)
    passes = {
        p: np.random.default_rng([seed, 7, p]).permutation(total)
        for p in set((positions // total).tolist())
    }
    return [int(passes[p // total][p % total]) for p in positions.tolist()]


def compose(record: Any, rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[str]]:
    """One sticker picture (size, size, 3) uint8 and its captions, with and without the background
    named.
    """
    background = stickers.sample_background(rng)
    picture = stickers.compose_sticker(
        record.rgba(), rng, size, background, mirror=stickers.mirrorable(record)
    )
    return picture, [record.text, stickers.compose_caption(record, background)]
