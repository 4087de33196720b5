"""What the playroom reader learns from: rendered scenes with their maps, and the same pictures
through the VAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy import ndarray

from zeroconv.data.sources.generated import open_scenes
from zeroconv.files import atomic_write
from zeroconv.machine import leave_ctrl_c
from zeroconv.playroom import render

SHARD = 512
PEOPLE = 4  # most in a scene
FIRST = 3_000_000  # of the training split: far from the seeds of the base model and of the controls


def draw_shards(
    folder: Path, count: int, size: int = 128, workers: int = 1, first: int = FIRST
) -> list[Path]:
    """Render `count` scenes, half of them with a person in it, into shards; those that are there
    are kept. first: the number of the first scene.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = count // 2
    seeds = [
        *open_scenes("train", count - half, first).seeds,
        *open_scenes("train", half, first, "person").seeds,
    ]
    seeds = [seeds[i] for i in np.random.default_rng(0).permutation(len(seeds))]
    parts = [seeds[i : i + SHARD] for i in range(0, len(seeds), SHARD)]
    paths = [folder / f"scenes-{number:03d}.npz" for number in range(len(parts))]
    todo = [
        (path, part, size) for path, part in zip(paths, parts, strict=True) if not path.exists()
    ]
    if workers > 1 and len(todo) > 1:
        with ProcessPoolExecutor(workers, initializer=leave_ctrl_c) as pool:
            list(pool.map(_draw, todo))
    else:
        list(map(_draw, todo))
    return paths


def _draw(job: tuple[Path, Sequence[int], int]) -> None:
    path, seeds, size = job
    scenes = [render(seed, size) for seed in seeds]
    joints = np.zeros((len(scenes), PEOPLE, 18, 3), np.float32)
    for i, scene in enumerate(scenes):
        for j, person in enumerate(scene.keypoints[:PEOPLE]):
            joints[i, j] = person
    arrays = {
        "image": np.stack([np.asarray(scene.image) for scene in scenes]),
        "depth": np.stack([scene.depth for scene in scenes]).astype(np.float16),
        "normal": np.stack([np.rint(scene.normal * 127) for scene in scenes]).astype(np.int8),
        "classes": np.stack([scene.segmentation for scene in scenes]),
        "joints": joints,
        "people": np.array([len(scene.keypoints) for scene in scenes]),
    }
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_shards(paths: Sequence[Path]) -> dict[str, ndarray]:
    """All shards end to end, in memory; `decoded` is the pictures through a VAE, where
    `<shard>.vae.npy` is there.
    """
    parts = [dict(np.load(path)) for path in paths]
    data = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    decoded = [path.with_suffix(".vae.npy") for path in paths]
    known = [
        np.load(d) if d.exists() else part["image"] for d, part in zip(decoded, parts, strict=True)
    ]
    data["decoded"] = np.concatenate(known)
    return data
