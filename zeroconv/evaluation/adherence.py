"""Whether the prompt is obeyed under control: the named colours against the colours of the regions
they were named for.

The pictures are generated with the scene's own edges, so its exact masks tell where object, floor
and wall are. The median colour of a region, in CIELAB with lightness weighed down (shading moves
it), goes to the nearest name; the names' reference colours are medians over real training scenes.
The same reading of the real pictures is the ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from zeroconv import playroom
from zeroconv.backbones import Backbone
from zeroconv.conditions import annotate
from zeroconv.control import ControlNet
from zeroconv.evaluation.metrics import interval, rgb_to_lab
from zeroconv.evaluation.pairs import Pair
from zeroconv.generation import Control, generate
from zeroconv.stopping import stop_if_asked

LIGHTNESS = 0.5  # weight of lightness beside hue and chroma
REGIONS = ("object", "floor", "wall")


def single_object_scenes(split: str, count: int, size: int, start: int = 0) -> list[playroom.Scene]:
    """The first `count` scenes of a split that hold exactly one object."""
    scenes: list[playroom.Scene] = []
    seeds = iter(playroom.SPLITS[split][start:])
    while len(scenes) < count:
        seed = next(seeds)
        if len(playroom.sample_scene(seed).objects) == 1:
            scenes.append(playroom.render(seed, size))
    return scenes


def regions(scene: playroom.Scene, number: int = 1) -> dict[str, np.ndarray]:
    """Masks (H, W) bool of object `number` from the left (a person: the clothes' middle), floor and
    wall, two pixels inside their edges.
    """
    thing = scene.instances == number
    if scene.objects[number - 1].kind == "person":
        thing &= _torso(scene, sum(thing.kind == "person" for thing in scene.objects[: number - 1]))
    masks = {"object": thing, "floor": scene.segmentation == 1, "wall": scene.segmentation == 0}
    kernel = np.ones((5, 5), np.uint8)
    eroded = {name: cv2.erode(mask.astype(np.uint8), kernel) > 0 for name, mask in masks.items()}
    return {name: eroded[name] if eroded[name].sum() >= 8 else masks[name] for name in masks}


def _torso(scene: playroom.Scene, person: int) -> np.ndarray:
    """Between shoulders and hips, where nothing but clothes is seen."""
    points = scene.keypoints[person]
    corners = points[[2, 5, 11, 8], :2].astype(np.int32)
    mask = np.zeros(scene.instances.shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1)
    return cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0


def names_of(scene: playroom.Scene, number: int = 1) -> dict[str, str]:
    return {"object": scene.objects[number - 1].colour, "floor": scene.floor, "wall": scene.wall}


def colour_of(image: Image.Image, mask: np.ndarray) -> np.ndarray:
    """Median colour (3,) of a region in weighted CIELAB."""
    lab = rgb_to_lab(np.median(np.asarray(image)[mask], axis=0))
    return lab * np.array([LIGHTNESS, 1, 1])


def references(scenes: Sequence[playroom.Scene]) -> dict[str, dict[str, np.ndarray]]:
    """Region → name → median colour of that name in real scenes."""
    crops: dict[str, dict[str, list[np.ndarray]]] = {region: {} for region in REGIONS}
    for scene in scenes:
        masks, names = regions(scene), names_of(scene)
        for region in REGIONS:
            if masks[region].any():
                crops[region].setdefault(names[region], []).append(
                    colour_of(scene.image, masks[region])
                )
    return {
        region: {name: np.median(v, axis=0) for name, v in named.items()}
        for region, named in crops.items()
    }


def read_names(
    images: Sequence[Image.Image],
    scenes: Sequence[playroom.Scene],
    known: dict[str, dict[str, np.ndarray]],
) -> dict[str, list[float]]:
    """Region → 1 where the nearest name is the one in the caption, else 0; a picture each."""
    right: dict[str, list[float]] = {region: [] for region in REGIONS}
    for image, scene in zip(images, scenes, strict=True):
        masks, names = regions(scene), names_of(scene)
        for region in REGIONS:
            if masks[region].any():
                colour = colour_of(image, masks[region])
                nearest = min(
                    known[region],
                    key=lambda name: float(np.linalg.norm(known[region][name] - colour)),
                )
                right[region].append(float(nearest == names[region]))
    return right


def adherence(
    backbone: Backbone,
    control: ControlNet,
    count: int = 200,
    steps: int = 12,
    cfg: float = 4.0,
    guidance: str = "resolution",
    batch_size: int = 16,
) -> tuple[dict, list[Image.Image], list[playroom.Scene]]:
    """Share of regions whose colour is the named one, generated and real (the reading's ceiling),
    with intervals.
    """
    size = backbone.default_size
    known = references(single_object_scenes("train", 400, size, start=2_000_000))
    scenes = single_object_scenes("test", count, size)
    hints = [annotate("canny", scene.image) for scene in scenes]
    options: dict[str, Any] = {
        "steps": steps,
        "cfg": cfg,
        "guidance": guidance,
        "batch_size": batch_size,
        "plain_prompt": True,  # captions are read as they stand, as in training
    }
    images = generate(backbone, [s.caption for s in scenes], [Control(control, hints)], **options)
    made, real = (
        read_names(images, scenes, known),
        read_names([s.image for s in scenes], scenes, known),
    )
    report = {
        region: {"generated": interval(made[region]), "real": interval(real[region])}
        for region in REGIONS
    }
    return report, images, scenes


@lru_cache(maxsize=2)
def known_colours(size: int, count: int = 240) -> dict[str, dict[str, np.ndarray]]:
    """Reference colours from scenes far from the base model's own and the controls'."""
    return references(single_object_scenes("train", count, size, start=2_000_000))


def caption_figures(
    pairs: Sequence[Pair], sets: dict[str, list[Image.Image]], real: Sequence[Image.Image]
) -> dict[str, dict[str, dict[str, float]]]:
    """Region → set of pictures → share of scenes whose region has the colour that the caption
    names, with intervals.

    `pairs` are scenes of the playroom, whose names tell their seeds. Objects that show fewer than
    30 pixels, and pictures made without control, whose objects stand elsewhere, are not asked for
    their objects.
    """
    size = real[0].width
    scenes = [playroom.render(int(pair.name.removeprefix("scene-")), size) for pair in pairs]
    known = known_colours(size)
    right: dict[str, dict[str, list[float]]] = {region: {} for region in REGIONS}
    for name, images in {**sets, "real": list(real)}.items():
        for image, scene in zip(images, scenes, strict=False):
            for region, values in named_right(image, scene, known, objects=name != "none").items():
                if values:
                    right[region].setdefault(name, []).extend(values)
    return {
        region: {name: interval(values) for name, values in by_name.items()}
        for region, by_name in right.items()
    }


def named_right(
    image: Image.Image,
    scene: playroom.Scene,
    known: dict[str, dict[str, np.ndarray]],
    objects: bool = True,
) -> dict[str, list[float]]:
    """Region → 1 or 0 for each thing of the scene that the caption gives a colour: whether its
    pixels have it.

    Things that show fewer than 30 pixels are not asked for; with `objects` False, no objects.
    """
    stop_if_asked()
    right: dict[str, list[float]] = {region: [] for region in REGIONS}
    for number in range(1, len(scene.objects) + 1):
        masks, names = regions(scene, number), names_of(scene, number)
        for region in REGIONS if number == 1 else ("object",):
            if (region == "object" and not objects) or masks[region].sum() < 30:
                continue
            colour = colour_of(image, masks[region])
            nearest = min(
                known[region], key=lambda n: float(np.linalg.norm(known[region][n] - colour))
            )
            right[region].append(float(nearest == names[region]))
    return right
