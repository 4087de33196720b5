"""Conditions: drawn right, found by their names, resized and mirrored without loss."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from zeroconv import playroom
from zeroconv.conditions import CONDITIONS, PAPER, annotate, find, resize_hint
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
    assert set(np.unique(np.asarray(resize_hint(Image.fromarray(pixels), (4, 4), "nearest")))) <= {
        0,
        200,
    }
    assert 100 in np.unique(np.asarray(resize_hint(Image.fromarray(pixels), (4, 4), "area")))


def test_every_entry_is_complete_and_no_name_means_two_things():
    names = [name for c in CONDITIONS.values() for name in (c.name, *c.aliases)]
    assert len(names) == len(set(names)) and len(PAPER) == 9
    for condition in CONDITIONS.values():
        assert condition.meaning and condition.licence and condition.channels in (1, 3, 4)
        assert (condition.draw is None) == condition.needs_weights == bool(condition.source)


def picture(seed: int = 3, size: int = 128) -> Image.Image:
    return playroom.render(seed, size).image


DRAWN = [c for c in CONDITIONS.values() if c.draw is not None]


@pytest.mark.parametrize("condition", DRAWN, ids=lambda c: c.name)
def test_drawings_have_the_declared_form_and_depend_on_the_picture(condition):
    hint, again, other = (annotate(condition.name, picture(seed)) for seed in (3, 3, 5))
    assert hint.size == (128, 128) and hint.mode == ("RGBA" if condition.channels == 4 else "RGB")
    assert hint.tobytes() == again.tobytes() != other.tobytes()
    pixels = np.asarray(hint)
    if condition.channels == 1:
        assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    if condition.resize == "lines":
        assert set(np.unique(pixels)) == {0, 255}
        assert 0.002 < (pixels[..., 0] > 0).mean() < 0.5  # white on black, never black on white


@pytest.mark.parametrize(
    "condition", [c for c in DRAWN if c.resize != "nearest"], ids=lambda c: c.name
)
def test_a_flat_picture_has_no_lines(condition):
    flat = Image.new("RGB", (64, 64), (200, 150, 90))
    if condition.name in ("canny", "lines", "softedge", "scribble", "lineart"):
        assert np.asarray(annotate(condition.name, flat)).max() == 0
    else:
        assert np.asarray(annotate(condition.name, flat)).std(axis=(0, 1)).max() < 1


@pytest.mark.parametrize("name", ["softedge", "lineart", "scribble", "lines", "canny"])
def test_lines_lie_on_the_outline(name):
    hint = np.asarray(annotate(name, square_picture(64)))[..., 0]
    rows, columns = np.nonzero(hint > 127)
    inside = (rows > 20) & (rows < 43) & (columns > 20) & (columns < 43)
    assert len(rows) > 60 and inside.mean() < 0.1


def test_strokes_of_a_user_become_white_on_black():
    paper = np.full((64, 64, 3), 250, np.uint8)
    paper[30:33, 5:60] = (20, 30, 90)
    dark_on_light = np.asarray(annotate("scribble", Image.fromarray(paper), strokes=1))[..., 0]
    light_on_dark = np.asarray(annotate("scribble", Image.fromarray(255 - paper), strokes=1))[
        ..., 0
    ]
    assert (dark_on_light == light_on_dark).all() and (dark_on_light[31, 5:60] == 255).all()
    assert (dark_on_light > 0).sum() == 3 * 55
    assert np.asarray(annotate("scribble", Image.new("RGB", (8, 8), "white"), strokes=1)).max() == 0


def test_the_segment_detector_draws_straight_lines_only():
    pixels = np.zeros((128, 128, 3), np.uint8)
    cv2.circle(pixels, (64, 64), 20, (255, 255, 255), -1)
    cv2.rectangle(pixels, (5, 100), (120, 120), (255, 255, 255), -1)
    hint = np.asarray(annotate("lines", Image.fromarray(pixels), length=0.3))[..., 0]
    assert (hint[98:123] > 0).sum() > 200 and (hint[40:90] > 0).sum() == 0


def test_what_keeps_colours_keeps_them():
    image = picture(14)
    pixels = np.asarray(image).astype(float)
    for name in ("tile", "palette", "blur"):
        hint = np.asarray(annotate(name, image)).astype(float)
        assert abs(hint.mean(axis=(0, 1)) - pixels.mean(axis=(0, 1))).max() < 3
        assert hint.std() < pixels.std()
    assert len(np.unique(np.asarray(annotate("palette", image)).reshape(-1, 3), axis=0)) <= 64
    shuffled = np.asarray(annotate("shuffle", image))
    same, other = (
        CONDITIONS["shuffle"].score(shuffled, np.asarray(p))["histogram"]
        for p in (image, picture(5))
    )
    assert same > 0.7 > other
    assert (np.asarray(annotate("shuffle", image, seed=1)) != shuffled).any()


def test_an_inpaint_hint_has_a_hole_of_the_asked_size():
    for share in (0.1, 0.4):
        hint = np.asarray(annotate("inpaint", picture(), share=share))
        assert abs((hint[..., 3] == 0).mean() - share) < 0.12
    mask = np.zeros((128, 128), np.uint8)
    mask[:, :64] = 1
    pixels = np.asarray(picture())
    hint = CONDITIONS["inpaint"].draw(pixels, mask=mask)
    assert (
        (hint[:, :64, 3] == 0).all()
        and (hint[:, 64:, 3] == 255).all()
        and (hint[..., :3] == pixels).all()
    )
    filled = pixels.copy()
    filled[:, :64] = 0
    assert CONDITIONS["inpaint"].score(hint, filled)["rmse"] == 0
    with pytest.raises(UserError, match="mask"):
        CONDITIONS["inpaint"].draw(pixels, mask=mask[:5])


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("lines", {"length": 2}),
        ("scribble", {"threshold": 0}),
        ("lineart", {"tau": 3}),
        ("shuffle", {"reach": 0}),
        ("tile", {"factor": 0.5}),
        ("palette", {"grid": 0}),
        ("inpaint", {"share": 2}),
        ("blur", {"sigma": 0}),
    ],
)
def test_condition_parameters_out_of_range_are_refused(name, setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        annotate(name, square_picture(), **setting)
    assert set(setting) <= set(CONDITIONS[name].defaults)


@pytest.mark.parametrize("condition", DRAWN, ids=lambda c: c.name)
def test_mirroring_a_hint_is_drawing_the_mirrored_picture(condition):
    """But for a pixel where an operator rounds to one side, and but for random flows and holes."""
    if condition.name in ("shuffle", "inpaint"):
        pytest.skip("its randomness does not turn round with the picture")
    image = np.asarray(picture(14))
    there = condition.mirror(np.asarray(condition.draw(image))).astype(int)
    back = np.asarray(condition.draw(np.ascontiguousarray(image[:, ::-1]))).astype(int)
    if condition.resize == "lines":
        scores = CONDITIONS["canny"].score(there.astype(np.uint8), back.astype(np.uint8))
        assert scores["f1_1px"] > (0.8 if condition.name == "lines" else 0.97)
    else:
        assert np.abs(there - back).mean() < 1.5
