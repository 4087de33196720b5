"""The judge of circles: right on right pictures, wrong on wrong ones."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.quality.fill50k import figures, measure, painted, read_colours
from zeroconv.playroom.fill50k import Circle, draw_circle, lab, rgb, sample_circle

CIRCLES = [sample_circle(i) for i in range(24)]


def pictures(circles) -> list[Image.Image]:
    return [Image.fromarray(draw_circle(circle, 128)[0]) for circle in circles]


def test_true_pictures_are_right() -> None:
    measured = figures(measure(pictures(CIRCLES), CIRCLES))
    assert measured["both"] == measured["circle of the right basic colour (11)"] == 1
    assert measured["median distance of circle, CIE Lab"] < 0.01
    assert measured["circle where its outline is, IoU"] > 0.98


def test_others_pictures_are_wrong() -> None:
    measured = figures(measure(pictures(CIRCLES[1:] + CIRCLES[:1]), CIRCLES))
    assert measured["both"] < 0.1
    assert measured["circle has the colour of its name"] < 0.3
    assert measured["circle where its outline is, IoU"] < 0.4


def test_fill50k_circle_elsewhere_has_neither_position_nor_colour() -> None:
    circle, moved = Circle("red", "white", 0.3, 0.3, 0.15), Circle("red", "white", 0.7, 0.7, 0.15)
    measured = measure(pictures([moved]), [circle])
    assert measured["iou"][0] == 0
    assert measured["circle"][0] > 50  # white where red was asked for
    assert measured["ground"][0] < 1


def test_fill50k_swapped_colours_are_wrong_and_the_position_is_right() -> None:
    circle, swapped = Circle("red", "white", 0.4, 0.5, 0.2), Circle("white", "red", 0.4, 0.5, 0.2)
    measured = measure(pictures([swapped]), [circle])
    assert measured["iou"][0] > 0.97
    assert min(measured["circle"][0], measured["ground"][0]) > 50


def test_noise_and_one_colour_are_no_circle() -> None:
    rng, circle = np.random.default_rng(0), CIRCLES[0]
    noise = Image.fromarray(rng.integers(0, 256, (128, 128, 3), np.uint8))
    assert (
        measure([noise, Image.new("RGB", (128, 128), "red")], [circle, circle])["iou"].max() < 0.3
    )
    soft = np.asarray(pictures([circle])[0]).astype(float) + rng.normal(0, 8, (128, 128, 3))
    soft = soft.clip(0, 255).astype(np.uint8)  # what a sampler leaves is not flat
    seen, _ = read_colours(soft, circle)
    assert np.linalg.norm(seen - lab(np.array([rgb(circle.colour)]))[0]) < 6
    assert painted(soft).any()
