"""A rendered scene with every map exact: what a condition should look like, without an annotator's
errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.machine import cores, leave_ctrl_c
from zeroconv.playroom.captions import all_captions, caption_of
from zeroconv.playroom.people import KEYPOINTS
from zeroconv.playroom.renderer import Camera, Hits, cast, draw, parts_of
from zeroconv.playroom.world import CLASSES, ObjectSpec, SceneSpec, sample_scene

SIZES = (64, 128, 256)


@dataclass(frozen=True)
class Scene:
    """One picture and its ground truth; maps are (H, W), taken at pixel centres.

    depth: float32 metres along the optical axis. normal: (H, W, 3) float32 unit, camera axes (x
    right, y up, z to the viewer). segmentation: uint8 index into `CLASSES`. instances: uint8, 0
    room, i + 1 for `objects[i]`. keypoints: one (18, 3) float32 a person, x and y in pixels, third
    2 visible, 1 hidden, 0 outside. outline: uint8 0 or 255.
    """

    spec: SceneSpec
    size: int
    image: Image.Image
    caption: str
    captions: list[str]
    depth: ndarray
    normal: ndarray
    segmentation: ndarray
    instances: ndarray
    keypoints: list[ndarray]
    outline: ndarray

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def objects(self) -> tuple[ObjectSpec, ...]:
        return self.spec.objects

    @property
    def floor(self) -> str:
        return self.spec.floor

    @property
    def wall(self) -> str:
        return self.spec.wall


def render(seed: int, size: int = 128) -> Scene:
    """The scene of a seed at 64, 128 or 256 pixels. Raises UserError for another size."""
    return render_spec(sample_scene(seed), size)


def render_spec(spec: SceneSpec, size: int = 128) -> Scene:
    """Picture and maps of a scene; the same scene at every size."""
    _check(size)
    camera, (parts, people) = Camera.of(spec), parts_of(spec)
    hits = cast(spec, parts, camera, size)
    kinds = np.array([0, *(CLASSES.index(thing.kind) for thing in spec.objects)], np.uint8)
    segmentation = np.where(
        hits.instance > 0, kinds[hits.instance], np.where(hits.wall, 0, 1)
    ).astype(np.uint8)
    right, up, forward = camera.axes
    return Scene(
        spec=spec,
        size=size,
        image=Image.fromarray(draw(spec, size)),
        caption=caption_of(spec),
        captions=all_captions(spec),
        depth=hits.depth.astype(np.float32),
        normal=(hits.normal @ np.stack([right, up, -forward], axis=1)).astype(np.float32),
        segmentation=segmentation,
        instances=hits.instance,
        keypoints=_keypoints(spec, people, camera, hits, size),
        outline=_outline(hits),
    )


def _check(size: int) -> None:
    if size not in SIZES:
        raise UserError(
            f"Playroom scenes are drawn at {', '.join(map(str, SIZES))} pixels, not {size}."
        )


def _keypoints(
    spec: SceneSpec, people: list, camera: Camera, hits: Hits, size: int
) -> list[ndarray]:
    """Project the joints; one is hidden where something nearer than the joint's own limb covers its
    pixel.
    """
    numbers = [i for i, thing in enumerate(spec.objects, start=1) if thing.kind == "person"]
    keypoints = []
    for number, joints in zip(numbers, people, strict=True):
        projected = camera.project(np.stack([joints[name] for name in KEYPOINTS]))
        x, y, depth = projected[:, 0] * size, projected[:, 1] * size, projected[:, 2]
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        column, row = np.clip(x, 0, size - 1).astype(int), np.clip(y, 0, size - 1).astype(int)
        # a joint lies this deep inside its limb at most
        reach = 0.09 * spec.objects[number - 1].height
        seen = (hits.instance[row, column] == number) & (depth - hits.depth[row, column] < reach)
        keypoints.append(
            np.stack([x, y, np.where(inside, np.where(seen, 2, 1), 0)], axis=1).astype(np.float32)
        )
    return keypoints


def _outline(hits: Hits) -> ndarray:
    """Where the thing or, within a thing, the depth jumps to the right or below; white on black,
    one pixel wide.
    """
    edge = np.zeros(hits.depth.shape, bool)
    # the room's corner ends at a thing
    surface = np.where(hits.instance > 0, hits.instance + np.int16(1), hits.wall)
    for axis in (0, 1):
        step = [slice(None), slice(None)]
        step[axis] = slice(0, -1)
        jump = np.diff(surface, axis=axis) != 0
        jump |= np.abs(np.diff(hits.depth, axis=axis)) > 0.15
        # the floor recedes quickly near the wall: a slope there is no outline
        flat = np.take(hits.instance, range(edge.shape[axis] - 1), axis=axis) == 0
        flat &= np.take(hits.instance, range(1, edge.shape[axis]), axis=axis) == 0
        same = np.diff(hits.wall.astype(np.int8), axis=axis) == 0
        edge[tuple(step)] |= jump & ~(flat & same)
    return edge.astype(np.uint8) * 255


def render_image(seed: int, size: int = 128) -> tuple[ndarray, str]:
    """The picture (size, size, 3) uint8 and the caption alone: three times as fast as with maps."""
    _check(size)
    spec = sample_scene(seed)
    return draw(spec, size), caption_of(spec)


def render_many(
    seeds: Sequence[int], size: int = 128, workers: int | None = None, maps: bool = False
) -> list:
    """Scenes (`maps`) or (picture, caption) pairs of seeds, in order, over `workers` processes
    (default: all cores).
    """
    _check(size)
    job = partial(render if maps else render_image, size=size)
    workers = workers or cores()
    if workers == 1 or len(seeds) < 32:
        return [job(seed) for seed in seeds]
    with ProcessPoolExecutor(workers, initializer=leave_ctrl_c) as pool:
        return list(pool.map(job, seeds, chunksize=max(1, min(64, len(seeds) // (4 * workers)))))
