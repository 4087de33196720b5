"""Styles: the same for a seed, unlike the plain picture and each other, on the very same
geometry.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from zeroconv import playroom
from zeroconv.data import open_dataset
from zeroconv.errors import UserError
from zeroconv.playroom.renderer import Camera, cast, parts_of
from zeroconv.playroom.styles import STYLES, _hidden_from, style_image

SEEDS = range(9_000_000, 9_000_012)


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_is_a_picture_in_any_process(style):
    code = "import sys, hashlib; from zeroconv.playroom.styles import style_image; "
    code += (
        f"sys.stdout.write(hashlib.sha256(style_image(9000005, {style!r}, "
        "64)[0].tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    import hashlib

    picture, caption = style_image(9_000_005, style, 64)
    assert hashlib.sha256(picture.tobytes()).hexdigest() == other
    assert caption == playroom.render(9_000_005, 64).caption
    assert not np.array_equal(style_image(9_000_006, style, 64)[0], picture)


def test_a_pencil_draws_dark_lines_on_light_grey_paper():
    for seed in SEEDS:
        picture = style_image(seed, "pencil", 128)[0].astype(float)
        # grey: the paper is a little warm, nothing has a colour
        assert np.ptp(picture, axis=-1).max() < 14
        assert picture.mean() > 140 and np.percentile(picture, 1) < 110


def test_pencil_lines_stand_where_the_geometry_has_edges():
    for seed in SEEDS:
        picture = style_image(seed, "pencil", 128)[0].mean(-1)
        instances = playroom.render(seed, 128).instances
        jump = np.diff(instances.astype(int), axis=1, append=instances[:, -1:]) != 0
        # some pixel of the three around a jump is darker than nine in ten of the picture's
        darkest = np.minimum(np.minimum(picture, np.roll(picture, 1, 1)), np.roll(picture, -1, 1))
        assert (darkest[jump] < np.percentile(picture, 25)).mean() > 0.9


def test_no_line_of_the_room_is_drawn_across_a_thing():
    from zeroconv.playroom.styles import _contours

    spec = playroom.sample_scene(9_000_000)  # a cube before the foot of the wall
    hits = cast(spec, parts_of(spec)[0], Camera.of(spec), 128)
    behind = np.diff(hits.wall.astype(int), axis=0) != 0
    inside = (hits.instance[:-1] > 0) & (hits.instance[1:] == hits.instance[:-1])
    smooth = (hits.normal[:-1] * hits.normal[1:]).sum(-1) > 0.99
    assert (behind & inside & smooth).sum() > 20
    # upright edges cross those pixels too
    assert not _contours(hits)[:-1][behind & inside & smooth].mean() > 0.2


def test_night_is_dark_with_warm_light_and_blue_dusk():
    for seed in SEEDS:
        plain = playroom.render_image(seed, 128)[0].astype(float)
        dark = style_image(seed, "night", 128)[0].astype(float)
        assert dark.mean() < 0.75 * plain.mean()
        lean = dark[..., 0] / (dark[..., 2] + 1) / (plain[..., 0] / (plain[..., 2] + 1))
        # redder than by day where the lamp is, else bluer
        assert np.percentile(lean, 95) > 1 > np.percentile(lean, 5)


def test_a_lamp_does_not_shine_through_things():
    thing = playroom.ObjectSpec(
        "ball", "red", "large", x=0.0, z=4.0, height=1.0, radius=0.5, yaw=0.0
    )
    spec = playroom.SceneSpec(
        0, (thing,), "stone", "grey", (0.5, 0.8, -0.3), (0.0, 1.5, 0.0), 0.0, 0.15, 6.0
    )
    parts = parts_of(spec)[0]
    hits = cast(spec, parts, Camera.of(spec), 128)
    hidden = _hidden_from(hits, parts, np.float32([0.0, 3.0, 4.0]))  # right above the ball
    floor = (hits.instance == 0) & ~hits.wall
    reach = np.hypot(hits.point[..., 0], hits.point[..., 2] - 4.0)
    edge = 3.0 * np.tan(np.arcsin(0.5 / 2.5))  # of the cone of shadow, on the floor
    assert (
        hidden[floor & (reach < edge - 0.03)].all() and (floor & (reach < edge - 0.03)).sum() > 100
    )
    assert not hidden[floor & (reach > edge + 0.03)].any()


@pytest.mark.slow
def test_a_data_set_in_a_style_has_the_plain_scenes_captions_and_hints():
    for condition in ("canny", "depth", "pose", "segmentation"):
        plain = open_dataset("playroom:test:3?only=person", condition=condition, size=128)
        drawn = open_dataset(
            "playroom:test:3?only=person&style=night", condition=condition, size=128
        )
        for a, b in zip(plain, drawn, strict=True):
            assert a.text == b.text and a.hint.tobytes() == b.hint.tobytes()
            assert a.image.tobytes() != b.image.tobytes()
    assert open_dataset("playroom:test:1?style=pencil", size=128)[0].hint is None


def test_the_cache_tells_styles_apart():
    keys = {
        open_dataset(f"playroom:test:1{query}").key(0)
        for query in ("", "?style=pencil", "?style=night")
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("playroom:test:1?style=oil", "no style 'oil'; choose from pencil, night"),
        ("stickers?style=pencil", "which only playroom's scenes have"),
    ],
)
def test_style_that_is_none_is_refused(spec, sentence):
    with pytest.raises(UserError, match=sentence):
        open_dataset(spec)


def test_sizes_are_the_playrooms():
    assert style_image(9_000_000, "night", 256)[0].shape == (256, 256, 3)
    with pytest.raises(UserError, match="not 100"):
        style_image(9_000_000, "night", 100)
