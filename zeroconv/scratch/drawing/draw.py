"""Drawing shards, several at a time, as pictures or as moments of the embedded VAE."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch

from zeroconv.errors import UserError
from zeroconv.machine import leave_ctrl_c
from zeroconv.playroom import stickers
from zeroconv.scratch.corpus.shards import PIXELS, has_shard, save_shard
from zeroconv.scratch.drawing.encoding import moments_of
from zeroconv.scratch.drawing.jobs import SHARD, Job, draw_scenes, draw_stickers, jobs
from zeroconv.scratch.embedded import encoding_vae


def draw(
    folder: Path,
    art: Path,
    scenes: int,
    drawings: int,
    shard: int = SHARD,
    size: int = 128,
    workers: int = 1,
    split: str = "train",
    pixels: bool = False,
) -> None:
    """Draw every shard that `folder` lacks, `workers` at a time. `pixels`: keep the pictures, not
    their moments.

    Raises UserError where `art` holds no stickers, or stickers that are laid on a background.
    """
    records = stickers.load_stickers(art, split=split) if drawings else []
    if drawings and not records:
        raise UserError(
            f"No stickers of split {split!r} in {art}; make them with `zeroconv playroom stickers "
            f"{art}`."
        )
    if any(record.background for record in records):
        raise UserError(
            f"The stickers in {art} have a background already; make those without one "
            "with `zeroconv playroom stickers`."
        )
    wanted = jobs(scenes, drawings, shard, split)
    left = [job for job in wanted if not has_shard(folder, job.name)]
    one = partial(_draw_one, folder, records, size, pixels)

    if workers == 1:
        for job in left:
            print(f"drew {one(job)}", flush=True)
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker) as pool:
        for name in pool.map(one, left):
            print(f"drew {name}", flush=True)


def _begin_worker() -> None:
    leave_ctrl_c()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _draw_one(
    folder: Path, records: Sequence[stickers.Sticker], size: int, pixels: bool, job: Job
) -> str:
    scene = job.kind == "scenes"
    pictures, captions = draw_scenes(job, size) if scene else draw_stickers(job, records, size)

    arrays = {PIXELS: pictures} if pixels else moments_of(encoding_vae(), pictures)
    save_shard(folder, job.name, arrays, captions)

    return job.name
