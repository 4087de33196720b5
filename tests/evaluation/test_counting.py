"""Things are counted by connected regions; figures fall when a picture gets worse."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from zeroconv import playroom
from zeroconv.evaluation import counting
from zeroconv.evaluation.adherence import references, single_object_scenes
from zeroconv.evaluation.counting import (
    CLASSES,
    colours_right,
    count_scenes,
    exactly,
    hits_of_named,
    regions_of,
    sharpness,
)

BALL, CUBE = CLASSES.index("ball"), CLASSES.index("cube")


def a_map(*blocks: tuple[int, int, int, int], size: int = 128) -> np.ndarray:
    """Squares (class, x, y, side) on a wall."""
    classes = np.zeros((size, size), np.uint8)
    for number, x, y, side in blocks:
        classes[y : y + side, x : x + side] = number
    return classes


def a_spec(*kinds: str) -> playroom.SceneSpec:
    """A scene of the test split with things of these kinds, from left to right."""
    for seed in playroom.SPLITS["test"]:
        spec = playroom.sample_scene(seed)
        if [thing.kind for thing in spec.objects] == list(kinds):
            return spec
    raise AssertionError(kinds)


def test_regions_are_parted_and_crumbs_are_none():
    regions = regions_of(a_map((CUBE, 80, 50, 20), (BALL, 10, 50, 9), (BALL, 40, 9, 6)))

    sizes = [(region.kind, int(region.mask.sum())) for region in regions]
    assert sizes == [("ball", 81), ("cube", 400)]


@pytest.mark.parametrize(("size", "side"), [(64, 4), (128, 7), (256, 13)])
def test_the_least_region_grows_with_the_picture(size: int, side: int):
    smaller = side - 1

    assert len(regions_of(a_map((BALL, 9, 9, side), size=size))) == 1
    assert regions_of(a_map((BALL, 9, 9, smaller), size=size)) == []


def test_a_missing_a_second_and_a_wrong_thing_are_counted():
    spec = a_spec("ball", "cube")
    both = regions_of(a_map((BALL, 10, 50, 9), (CUBE, 60, 50, 20)))
    more = regions_of(a_map((BALL, 10, 50, 9), (BALL, 30, 50, 9), (CUBE, 60, 50, 20)))
    twice = regions_of(a_map((BALL, 10, 50, 9), (BALL, 60, 50, 20)))

    assert hits_of_named(spec, both) == [1, 1] and exactly(spec, both) == 1
    assert hits_of_named(spec, more) == [1, 1] and exactly(spec, more) == 0
    assert hits_of_named(spec, twice) == [1, 0] and exactly(spec, twice) == 0


@pytest.fixture
def few_references(monkeypatch):
    """Reference colours of 40 scenes: enough for the scenes of these tests, and quick."""
    known = references(single_object_scenes("train", 40, 128))
    monkeypatch.setattr(counting, "known_colours", lambda size: known)


def test_colours_of_a_real_scene_are_right_and_of_another_wrong(few_references):
    scene = next(s for s in map(playroom.render, playroom.SPLITS["test"]) if len(s.objects) == 2)
    regions = regions_of(scene.segmentation)
    right = colours_right(scene.image, scene.segmentation, scene.spec, regions)
    turned = Image.fromarray(255 - np.asarray(scene.image))
    wrong = colours_right(turned, scene.segmentation, scene.spec, regions)

    assert right == {"object": [1, 1], "floor": [1], "wall": [1]}
    assert sum(wrong["object"]) < 2 and wrong["wall"] == [0]


def test_sharpness_falls_with_blur_and_is_missing_without_things():
    scene = playroom.render(9_000_000)
    blurred = scene.image.filter(ImageFilter.GaussianBlur(2))

    assert sharpness(blurred, scene.segmentation) < 0.7 * sharpness(scene.image, scene.segmentation)
    assert np.isnan(sharpness(scene.image, np.zeros_like(scene.segmentation)))


def test_real_scenes_are_nearly_perfect_and_pairs_of_others_are_not(few_references):
    seeds = playroom.split_seeds("test", 12)
    specs = [playroom.sample_scene(seed) for seed in seeds]
    images = [Image.fromarray(playroom.render_image(seed)[0]) for seed in seeds]
    real = count_scenes(images, specs)
    other = count_scenes(images[1:] + images[:1], specs)

    assert np.mean(real["exact"]) >= 0.7 and np.mean(real["named"]) > 0.85
    assert np.mean(other["exact"]) < 0.4
    assert len(real["floor"]) == 12
