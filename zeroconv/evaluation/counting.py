"""What stands in a picture, read without knowing where anything should be: things by connected
regions, their colours, and how sharp their outlines are.

The playroom's reader tells the class of each pixel. It reads real pictures the same way, which is
the ceiling of every figure: touching things of one kind become one region for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv import playroom
from zeroconv.evaluation.adherence import colour_of, known_colours
from zeroconv.evaluation.reader import read

LEAST = 40  # pixels of a region at 128 px a side; smaller ones are the reader's crumbs
CLASSES = playroom.CLASSES  # wall, floor, and the kinds of things
ROOM = {"wall": 0, "floor": 1}


@dataclass
class Region:
    """One thing that the reader sees."""

    kind: str
    mask: ndarray  # (H, W) bool
    x: float  # pixels from the left, of its middle


def regions_of(classes: ndarray) -> list[Region]:
    """Connected regions of things in a map of classes (H, W), from left to right."""
    least = LEAST * classes.size / 128**2
    regions = []

    for number, kind in enumerate(CLASSES):
        if kind in ROOM:
            continue
        mask = (classes == number).astype(np.uint8)
        count, labels, stats, middles = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for label in range(1, count):
            if stats[label, cv2.CC_STAT_AREA] >= least:
                regions.append(Region(kind, labels == label, float(middles[label][0])))

    return sorted(regions, key=lambda region: region.x)


def hits_of_named(spec: playroom.SceneSpec, regions: Sequence[Region]) -> list[float]:
    """For each thing of the caption 1 where a region of its kind is left for it, else 0."""
    left = Counter(region.kind for region in regions)
    values = []

    for thing in spec.objects:
        values.append(float(left[thing.kind] > 0))
        left[thing.kind] -= 1

    return values


def exactly(spec: playroom.SceneSpec, regions: Sequence[Region]) -> float:
    """1 where kinds and counts are the caption's and nothing else stands there."""
    named = Counter(thing.kind for thing in spec.objects)

    return float(named == Counter(region.kind for region in regions))


def colours_right(
    image: Image.Image, classes: ndarray, spec: playroom.SceneSpec, regions: Sequence[Region]
) -> dict[str, list[float]]:
    """ "object", "floor", "wall" → 1 or 0 for each whose pixels have the colour of its name.

    Things are matched from left to right within a kind; a kind whose count is not the caption's is
    not asked, as nobody can tell which of them was meant.
    """
    known = known_colours(image.width)
    right: dict[str, list[float]] = {"object": [], "floor": [], "wall": []}

    for kind in {thing.kind for thing in spec.objects}:
        asked = [thing.colour for thing in spec.objects if thing.kind == kind]
        seen = [region.mask for region in regions if region.kind == kind]
        if len(asked) != len(seen):
            continue
        masks = [_torso(mask) if kind == "person" else mask for mask in seen]
        pairs = zip(asked, masks, strict=True)
        right["object"] += [_named(image, mask, name, known["object"]) for name, mask in pairs]

    for room, name in (("floor", spec.floor), ("wall", spec.wall)):
        mask = classes == ROOM[room]
        if mask.sum() >= LEAST:
            right[room].append(_named(image, mask, name, known[room]))

    return right


def _named(image: Image.Image, mask: ndarray, name: str, known: dict[str, ndarray]) -> float:
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    colour = colour_of(image, inner if inner.sum() >= 8 else mask)
    nearest = min(known, key=lambda one: float(np.linalg.norm(known[one] - colour)))

    return float(nearest == name)


def _torso(mask: ndarray) -> ndarray:
    """The rows of a person between head and knees, where clothes are seen."""
    rows = np.flatnonzero(mask.any(1))
    top, height = rows[0], rows[-1] + 1 - rows[0]
    part = np.zeros_like(mask)
    part[top + int(0.25 * height) : top + int(0.55 * height)] = True

    return mask & part


def sharpness(image: Image.Image, classes: ndarray) -> float:
    """Mean gradient of luminance (0 to 255, a pixel) where a thing ends: of each outline pixel the
    steepest of its 3 × 3 neighbours. NaN where no thing is seen.
    """
    things = (classes > 1).astype(np.uint8)
    outline = cv2.morphologyEx(things, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    if not outline.any():
        return float("nan")

    grey = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx, ksize=3) / 8 for dx in (1, 0))
    steep = cv2.dilate(np.hypot(across, down), np.ones((3, 3), np.uint8))

    return float(steep[outline].mean())


def count_scenes(
    images: Sequence[Image.Image], specs: Sequence[playroom.SceneSpec]
) -> dict[str, list[float]]:
    """All figures of pictures of scenes: lists of single values, for intervals."""
    values: dict[str, list[float]] = {
        name: [] for name in ("named", "exact", "object", "floor", "wall", "sharpness")
    }

    classes = read(images).segmentation
    for image, seen, spec in zip(images, classes, specs, strict=True):
        regions = regions_of(seen)
        values["named"] += hits_of_named(spec, regions)
        values["exact"].append(exactly(spec, regions))
        for region, right in colours_right(image, seen, spec, regions).items():
            values[region] += right
        sharp = sharpness(image, seen)
        values["sharpness"] += [] if np.isnan(sharp) else [sharp]

    return values
