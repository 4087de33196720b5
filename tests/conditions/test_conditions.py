"""Conditions: drawn right, found by their names, resized without loss, scored by closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zeroconv.conditions import CONDITIONS, annotate, edge_f1, find, resize_hint
from zeroconv.errors import UserError


def square_picture(size: int = 64) -> Image.Image:
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[16:48, 16:48] = (230, 60, 40)
    return Image.fromarray(pixels)


def test_canny_is_white_on_black_and_lies_on_the_outline():
    hint = np.asarray(annotate("canny", square_picture()))
    assert hint.shape == (64, 64, 3) and set(np.unique(hint)) == {0, 255}
    rows, columns = np.nonzero(hint[..., 0])
    near = np.minimum.reduce([abs(rows - 16), abs(rows - 47), abs(columns - 16), abs(columns - 47)])
    assert near.max() <= 1 and len(rows) > 4 * 28


def test_canny_thresholds_are_used():
    faint = Image.fromarray(np.uint8(np.tile(np.repeat([100, 130], 32), (64, 1)))).convert("RGB")
    assert np.asarray(annotate("canny", faint)).max() == 0
    assert np.asarray(annotate("canny", faint, low=40, high=80)).max() == 255
    with pytest.raises(UserError, match="low"):
        annotate("canny", faint, low=200, high=100)


def test_names_and_aliases():
    assert find("CANNY") is CONDITIONS["canny"]
    assert find("depth_midas").name == "depth"
    with pytest.raises(UserError, match="canny"):
        find("cany")


def test_depth_cannot_be_drawn_from_a_picture_and_says_where_it_comes_from():
    with pytest.raises(UserError, match="playroom"):
        annotate("depth", square_picture())


@pytest.mark.parametrize("column", range(4))
def test_shrinking_keeps_a_line_of_one_pixel(column):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 20 + column] = 255
    small = np.asarray(resize_hint(Image.fromarray(pixels), (16, 16)))
    assert set(np.unique(small)) == {0, 255}
    assert (small[..., 0].max(axis=0) > 0).any() and (small[:, :, 0] > 0).all(axis=0).any()


def test_nearest_invents_no_class_and_area_averages():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 3:] = 200
    assert set(np.unique(np.asarray(resize_hint(Image.fromarray(pixels), (4, 4), "nearest")))) <= {0, 200}
    assert 100 in np.unique(np.asarray(resize_hint(Image.fromarray(pixels), (4, 4), "area")))


def line(at: int) -> np.ndarray:
    edges = np.zeros((32, 32), np.uint8)
    edges[:, at] = 255
    return edges


def test_edge_f1_by_closed_forms():
    assert edge_f1(line(5), line(5), 0) == 1
    assert edge_f1(line(5), line(6), 0) == 0 and edge_f1(line(5), line(6), 1) == 1
    assert edge_f1(line(5), line(7), 1) == 0
    both = np.maximum(line(5), line(20))
    # all that was asked for is there (recall 1), half of what is there was asked for (precision 1/2): F1 = 2/3
    assert edge_f1(line(5), both, 0) == pytest.approx(2 / 3)
    assert edge_f1(both, line(5), 0) == pytest.approx(2 / 3)
    empty = np.zeros((32, 32), np.uint8)
    assert edge_f1(empty, empty) == 1 and edge_f1(line(5), empty) == 0 and edge_f1(empty, line(5)) == 0
    with pytest.raises(ValueError, match="alike"):
        edge_f1(empty, empty[:16])


def test_depth_score_does_not_wrap_around():
    a, b = np.full((4, 4), 10, np.uint8), np.full((4, 4), 30, np.uint8)
    assert CONDITIONS["depth"].score(a, b)["rmse"] == pytest.approx(20 / 255)
    assert CONDITIONS["depth"].score(b, a)["rmse"] == pytest.approx(20 / 255)
