"""Held-out pictures with their hints and captions: what a control is asked to follow."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zeroconv.conditions import annotate
from zeroconv.errors import UserError

if TYPE_CHECKING:
    from zeroconv.playroom.stickers import Sticker


@dataclass(frozen=True)
class Pair:
    hint: Image.Image  # RGB
    image: Image.Image
    caption: str


def load_pairs(data: str, condition: str, count: int, size: int, seed: int = 0) -> list[Pair]:
    """`count` pairs of "playroom:SPLIT" (rendered) or "stickers[:FOLDER]" (concepts of the test split, composed).

    Raises UserError for other names, or where there are too few pictures or no such hint.
    """
    kind, _, rest = data.partition(":")
    if kind == "playroom":
        return _scenes(rest or "test", condition, count, size)
    if kind == "stickers":
        return _stickers(Path(rest) if rest else None, condition, count, size, seed)
    raise UserError(f"There is no data {data!r}; give playroom:test, playroom:val, or stickers[:FOLDER].")


def _scenes(split: str, condition: str, count: int, size: int) -> list[Pair]:
    from zeroconv import playroom

    if split not in playroom.SPLITS:
        raise UserError(f"The playroom has no split {split!r}; choose from {', '.join(playroom.SPLITS)}.")
    pairs = []
    for seed in playroom.split_seeds(split, count):
        scene = playroom.render(seed, size)
        if condition == "depth":
            hint = Image.fromarray(playroom.depth_hint(scene.depth)).convert("RGB")
        else:
            hint = annotate(condition, scene.image)
        pairs.append(Pair(hint, scene.image, scene.caption))
    return pairs


def without_background(record: Sticker) -> Sticker:
    """The sample's captions name the ground of its flattened pictures; on another ground that is no longer true."""
    return replace(record, text=re.sub(r", on an? [\w ]+ background$", "", record.text))


def _stickers(folder: Path | None, condition: str, count: int, size: int, seed: int) -> list[Pair]:
    from zeroconv.playroom import stickers

    records = stickers.load_stickers(folder or stickers.sample_folder(), split="test")
    if not records:
        raise UserError(f"There are no stickers of held-out concepts in {folder}.")
    rng = np.random.default_rng(seed)
    order = [records[i] for i in rng.permutation(len(records))]
    pairs = []
    for i in range(count):
        record = without_background(order[i % len(order)])
        background = stickers.sample_background(rng)
        picture = stickers.compose_sticker(record.rgba(), rng, size, background, stickers.mirrorable(record))
        image = Image.fromarray(picture)
        pairs.append(Pair(annotate(condition, image), image, stickers.compose_caption(record, background)))
    return pairs
