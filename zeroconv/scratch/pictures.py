"""The pictures that the playroom base model learns from: rendered scenes and composed stickers, in
shards on disk.

A shard is one uint8 array (N, size, size, 3) and one JSON list of captions (several a picture); it
appears atomically, so that a trainer may start on the first shards while later ones are still being
drawn, and a killed run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zeroconv.errors import UserError
from zeroconv.files import atomic_write

SHARD = 2048


@dataclass
class Shard:
    name: str
    pictures: np.ndarray  # (N, size, size, 3) uint8, memory-mapped
    captions: list[list[str]]  # several a picture


def draw_scenes(
    folder: Path, count: int, size: int, split: str = "train", workers: int | None = None
) -> None:
    """Render `count` scenes of a split into shards `scenes-<split>-NNN`."""
    from zeroconv import playroom

    for index, start in enumerate(range(0, count, SHARD)):
        name = f"scenes-{split}-{index:03d}"
        if (folder / f"{name}.json").exists():
            continue
        seeds = playroom.split_seeds(split, min(SHARD, count - start), start=start)
        pictures = playroom.render_many(seeds, size, workers=workers, maps=False)
        captions = [playroom.all_captions(playroom.sample_scene(seed)) for seed in seeds]
        save_shard(
            folder, name, np.stack([np.asarray(picture[0]) for picture in pictures]), captions
        )


def draw_stickers(
    folder: Path, stickers: Path, count: int, size: int, split: str = "train", seed: int = 0
) -> None:
    """Compose `count` sticker pictures of a split (drawn in turn, each time elsewhere and on
    another background).
    """
    from zeroconv.playroom import stickers as art

    records = art.load_stickers(stickers, split=split)
    if not records:
        raise UserError(
            f"No stickers of split {split!r} in {stickers}; make them with `zeroconv playroom "
            f"stickers {stickers}`."
        )
    for index, start in enumerate(range(0, count, SHARD)):
        name = f"stickers-{split}-{index:03d}"
        if (folder / f"{name}.json").exists():
            continue
        rng = np.random.default_rng([seed, index])
        chosen = [
            records[i % len(records)]
            for i in sticker_order(start, min(SHARD, count - start), len(records), seed)
        ]
        drawn = [compose(record, rng, size) for record in chosen]
        save_shard(
            folder,
            name,
            np.stack([picture for picture, _ in drawn]),
            [captions for _, captions in drawn],
        )


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


def compose(record, rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[str]]:
    """One sticker picture (size, size, 3) uint8 and its captions, with and without the background
    named.
    """
    from zeroconv.playroom import stickers as art

    background = art.sample_background(rng)
    picture = art.compose_sticker(
        record.rgba(), rng, size, background, mirror=art.mirrorable(record)
    )
    return picture, [record.text, art.compose_caption(record, background)]


def save_shard(folder: Path, name: str, pictures: np.ndarray, captions: list[list[str]]) -> None:
    """Write the array first and the captions last: a shard exists once its JSON does."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{name}.npy") as path, open(path, "wb") as file:
        np.save(file, pictures)
    with atomic_write(folder / f"{name}.json") as path:
        path.write_text(json.dumps(captions))


def load_shards(folder: Path, split: str = "train") -> list[Shard]:
    """All finished shards of a split, memory-mapped, scenes first."""
    names = sorted(path.stem for path in folder.glob(f"*-{split}-*.json"))
    return [
        Shard(
            name,
            np.load(folder / f"{name}.npy", mmap_mode="r"),
            json.loads((folder / f"{name}.json").read_text()),
        )
        for name in names
    ]


def batches(
    folder: Path, batch_size: int, seed: int, crop: int | None = None, sticker_share: float = 0.35
) -> Iterator[np.ndarray]:
    """Endless batches (N, crop, crop, 3) uint8, a share of them stickers, mirrored half of the
    time.

    `crop` cuts the liveliest of three random windows (largest spread of values), so that few pixels
    are spent on empty wall; None gives whole pictures. Shards drawn meanwhile are picked up every
    200 batches.
    """
    rng = np.random.default_rng(seed)
    shards: list[Shard] = []
    for step in range(1 << 62):
        if step % 200 == 0:
            shards = load_shards(folder) or _missing(folder)
            scenes = [s for s in shards if s.name.startswith("scenes")] or shards
            stickers = [s for s in shards if s.name.startswith("stickers")] or shards
        pick = [stickers if rng.random() < sticker_share else scenes for _ in range(batch_size)]
        pictures = [_one(pool[rng.integers(len(pool))].pictures, rng, crop) for pool in pick]
        yield np.stack(pictures)


def _missing(folder: Path) -> list[Shard]:
    raise UserError(
        f"No picture shards in {folder}; the first stage of `zeroconv playroom train-base` draws "
        "them."
    )


def _one(pictures: np.ndarray, rng: np.random.Generator, crop: int | None) -> np.ndarray:
    picture = pictures[rng.integers(len(pictures))]
    if crop is not None:
        corners = rng.integers(0, picture.shape[0] - crop + 1, size=(3, 2))
        windows = [picture[y : y + crop, x : x + crop] for y, x in corners]
        picture = max(windows, key=lambda window: float(window[::2, ::2].std()))
    return picture[:, ::-1] if rng.random() < 0.5 else picture
