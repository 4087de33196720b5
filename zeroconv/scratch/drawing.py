"""Drawing what a base learns from: shards of cached moments and captions, in an order that a
training can start on.

A shard holds 1,024 pictures of one kind. Its pictures are drawn, encoded by the embedded VAE at two
sizes and dropped: a seed draws them again. Two scene shards, then one of stickers, so that any
beginning of the list is a fair mixture.

    python -m zeroconv.scratch.drawing FOLDER --art STICKERS
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from zeroconv import playroom
from zeroconv.errors import UserError
from zeroconv.playroom import sticker_captions, stickers
from zeroconv.playroom.captions import all_captions, phrase
from zeroconv.scratch.pictures import compose, sticker_order
from zeroconv.scratch.shards import SIZES, has_shard, save_shard

SHARD = 1024
VAE_BATCH = 16


@dataclass(frozen=True)
class Job:
    """One shard to draw: which kind, its number among its kind, and how many pictures."""

    kind: str  # "scenes" or "stickers"
    number: int
    count: int = SHARD

    @property
    def name(self) -> str:
        return f"{self.kind}-train-{self.number:03d}"


def jobs(scenes: int, drawings: int, shard: int = SHARD) -> Iterator[Job]:
    """The shards of `scenes` and `drawings` pictures, two of scenes to one of stickers while both
    last.
    """
    left = {"scenes": -(-scenes // shard), "stickers": -(-drawings // shard)}
    done = {"scenes": 0, "stickers": 0}

    while left["scenes"] or left["stickers"]:
        for kind in ("scenes", "scenes", "stickers"):
            if left[kind]:
                yield Job(kind, done[kind], shard)
                left[kind] -= 1
                done[kind] += 1


def scene_captions(spec: playroom.SceneSpec) -> list[str]:
    """Every template of the playroom, and the things alone, which is how a person writes."""
    names = [phrase(thing) for thing in spec.objects] or ["nothing"]
    things = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]

    return [*all_captions(spec), things]


def draw_scenes(job: Job, size: int) -> tuple[np.ndarray, list[list[str]]]:
    """Pictures (N, size, size, 3) uint8 and their captions, by the seeds of the train split."""
    seeds = playroom.split_seeds("train", job.count, start=job.number * job.count)
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
        picture, told = compose(record, rng, size)
        pictures.append(picture)
        captions.append(list(dict.fromkeys(told + _other_words(record, told))))

    return np.stack(pictures), captions


def _other_words(record: stickers.Sticker, told: Sequence[str]) -> list[str]:
    """The same sticker by the other templates, with the ground that the second caption names."""
    ground = told[1].removeprefix(record.text)
    plain = f"{record.name}, {record.style} style"
    kind = sticker_captions.kind(record.group, record.subgroup)

    return [
        f"{plain}{ground}",
        f"{record.name}{ground}",
        f"{record.name}, {kind}, {record.style} style{ground}",
    ]


@torch.no_grad()
def encode(vae, pictures: np.ndarray, size: int) -> np.ndarray:
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


def _moments(vae, x: Tensor) -> Tensor:
    return vae.encode(x).latent_dist.parameters.contiguous()


@lru_cache(maxsize=1)
def load_vae():
    """The embedded playroom VAE in float32."""
    from zeroconv.scratch.places import embedded_vae

    vae = embedded_vae().float().eval()
    return vae.to(memory_format=torch.channels_last).requires_grad_(False)


def draw(
    folder: Path,
    art: Path,
    scenes: int,
    drawings: int,
    shard: int = SHARD,
    size: int = 128,
    workers: int = 1,
) -> None:
    """Draw every shard that `folder` lacks, `workers` at a time.

    Raises UserError where `art` holds no stickers, or stickers that are laid on a background.
    """
    records = stickers.load_stickers(art, split="train") if drawings else []
    if drawings and not records:
        raise UserError(f"No stickers in {art}; make them with `zeroconv playroom stickers {art}`.")
    if any(record.background for record in records):
        raise UserError(
            f"The stickers in {art} have a background already; make those without one "
            "with `zeroconv playroom stickers`."
        )
    left = [job for job in jobs(scenes, drawings, shard) if not has_shard(folder, job.name)]
    one = partial(_draw_one, folder, records, size)

    if workers == 1:
        for job in left:
            print(f"drew {one(job)}", flush=True)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for name in pool.map(one, left):
            print(f"drew {name}", flush=True)


def _draw_one(folder: Path, records: Sequence[stickers.Sticker], size: int, job: Job) -> str:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scene = job.kind == "scenes"

    pictures, captions = draw_scenes(job, size) if scene else draw_stickers(job, records, size)
    moments = {side: encode(load_vae(), pictures, side) for side in SIZES}
    save_shard(folder, job.name, moments, captions)

    return job.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--art", type=Path, required=True, help="folder of `zeroconv playroom stickers`"
    )
    parser.add_argument("--scenes", type=int, default=48 * SHARD)
    parser.add_argument("--stickers", type=int, default=24 * SHARD)
    parser.add_argument("--workers", type=int, default=1, help="processes; a shard each")
    arguments = parser.parse_args()

    counts = arguments.scenes, arguments.stickers
    draw(arguments.folder, arguments.art, *counts, workers=arguments.workers)


if __name__ == "__main__":
    main()
