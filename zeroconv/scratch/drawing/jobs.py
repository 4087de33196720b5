"""Which shards are drawn, and the pictures and captions of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zeroconv import playroom
from zeroconv.playroom import sticker_captions, stickers
from zeroconv.playroom.captions import all_captions, phrase
from zeroconv.scratch.drawing.compositions import compose, sticker_order

SHARD = 1024


@dataclass(frozen=True)
class Job:
    """One shard to draw: which kind, its number among its kind, and how many pictures."""

    kind: str  # "scenes" or "stickers"
    number: int
    count: int = SHARD
    split: str = "train"

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.split}-{self.number:03d}"


def jobs(scenes: int, drawings: int, shard: int = SHARD, split: str = "train") -> Iterator[Job]:
    """The shards of `scenes` and `drawings` pictures, two of scenes to one of stickers while both
    last.
    """
    left = {"scenes": -(-scenes // shard), "stickers": -(-drawings // shard)}
    done = {"scenes": 0, "stickers": 0}

    while left["scenes"] or left["stickers"]:
        for kind in ("scenes", "scenes", "stickers"):
            if left[kind]:
                yield Job(kind, done[kind], shard, split)
                left[kind] -= 1
                done[kind] += 1


def scene_captions(spec: playroom.SceneSpec) -> list[str]:
    """Every template of the playroom, and the things alone, which is how a person writes."""
    names = [phrase(thing) for thing in spec.objects] or ["nothing"]
    things = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]

    return [*all_captions(spec), things]


def draw_scenes(job: Job, size: int) -> tuple[np.ndarray, list[list[str]]]:
    """Pictures (N, size, size, 3) uint8 and their captions, by the seeds of the split."""
    seeds = playroom.split_seeds(job.split, job.count, start=job.number * job.count)
    pictures = [np.asarray(playroom.render_image(seed, size)[0]) for seed in seeds]
    captions = [scene_captions(playroom.sample_scene(seed)) for seed in seeds]

    return np.stack(pictures), captions


def draw_stickers(
    job: Job, records: Sequence[stickers.Sticker], size: int, seed: int = 0
) -> tuple[np.ndarray, list[list[str]]]:
    """Compositions (N, size, size, 3) uint8 and their captions; mirrored where the caption stays
    true.
    """
    rng = np.random.default_rng([seed, 31, job.number])
    order = sticker_order(job.number * job.count, job.count, len(records), seed)
    pictures, captions = [], []

    for index in order:
        record = records[index]
        picture, captioned = compose(record, rng, size)
        pictures.append(picture)
        captions.append(list(dict.fromkeys(captioned + _other_words(record, captioned))))

    return np.stack(pictures), captions


def _other_words(record: stickers.Sticker, captioned: Sequence[str]) -> list[str]:
    """The same sticker by the other templates, with the ground that the second caption names."""
    ground = captioned[1].removeprefix(record.text)
    plain = f"{record.name}, {record.style} style"
    kind = sticker_captions.kind(record.group, record.subgroup)

    return [
        f"{plain}{ground}",
        f"{record.name}{ground}",
        f"{record.name}, {kind}, {record.style} style{ground}",
    ]
