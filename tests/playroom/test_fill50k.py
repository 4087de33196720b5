"""The circles of the training tutorial: right colours in the right place, whole after any
interruption.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from zeroconv.data import open_dataset
from zeroconv.errors import UserError
from zeroconv.playroom.fill50k import (
    CONTRAST,
    NAMES,
    build_fill50k,
    disc,
    draw_circle,
    lab,
    rgb,
    sample_circle,
)


def test_there_are_the_140_names_of_the_tutorial_and_all_are_colours():
    assert len(set(NAMES)) == 140
    assert {"pale golden rod", "old lace", "alice blue"} <= set(NAMES)
    assert rgb("pale golden rod") == (238, 232, 170)
    assert all(len(rgb(name)) == 3 for name in NAMES)


@pytest.mark.parametrize("size", [64, 128, 512])
def test_the_picture_shows_what_the_prompt_says_and_the_hint_is_its_outline(size):
    areas = []
    for number in range(20):
        circle = sample_circle(number)
        target, source = draw_circle(circle, size)
        inside = disc(circle, size)
        assert circle.prompt == f"{circle.colour} circle with {circle.ground} background"
        # all but the smoothed edge, which is two pixels wide
        centres = (np.arange(size) + 0.5) / size
        away = np.hypot(centres[None] - circle.x, centres[:, None] - circle.y) - circle.radius
        assert (target[away < -2 / size] == rgb(circle.colour)).all()
        assert (target[away > 2 / size] == rgb(circle.ground)).all()
        ground, colour = np.array(rgb(circle.ground)), np.array(rgb(circle.colour))
        filled = np.abs(target - ground).sum() / size**2 / np.abs(colour - ground).sum()
        areas.append(filled / (np.pi * circle.radius**2))
        assert (source[np.abs(away) > 3.5 / size] == 0).all()
        assert (
            0.9
            < (source[..., 0] > 100).sum()
            / (2 * np.pi * circle.radius * size * max(1, size // 256))
            < 2.6
        )
        assert not inside[0].any()
        assert not inside[-1].any()
        assert not inside[:, 0].any()
        assert not inside[:, -1].any()
    assert 0.98 < np.mean(areas) < 1.02


def test_fill50k_colours_of_a_picture_are_distinct():
    for number in range(200):
        circle = sample_circle(number)
        apart = lab(np.array([rgb(circle.colour)])) - lab(np.array([rgb(circle.ground)]))
        assert np.linalg.norm(apart) >= CONTRAST
    assert np.allclose(
        lab(np.array([[255, 255, 255], [0, 0, 0]])), [[100, 0, 0], [0, 0, 0]], atol=0.1
    )


def files(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_the_folder_is_the_same_whoever_draws_it_and_however_often_it_was_killed(tmp_path):
    assert build_fill50k(tmp_path / "a", 70, 32, workers=1) == 70
    assert build_fill50k(tmp_path / "b", 70, 32, workers=2) == 70
    complete = files(tmp_path / "a")
    assert files(tmp_path / "b") == complete
    assert len(complete) == 2 * 70 + 2
    torn = tmp_path / "b" / "target" / "7.png"
    torn.write_bytes(torn.read_bytes()[:-5])
    (tmp_path / "b" / "source" / "9.png").unlink()
    (tmp_path / "b" / "source" / "11.png").write_bytes(b"")
    (tmp_path / "b" / "prompt.json").unlink()
    assert build_fill50k(tmp_path / "b", 70, 32, workers=1) == 3
    assert files(tmp_path / "b") == complete


def test_a_longer_folder_begins_with_the_shorter_one_and_another_seed_is_another_set(tmp_path):
    build_fill50k(tmp_path / "a", 4, 32, workers=1)
    short = files(tmp_path / "a")
    assert build_fill50k(tmp_path / "a", 6, 32, workers=1) == 2
    assert short.items() - files(tmp_path / "a").items() == {("prompt.json", short["prompt.json"])}
    assert len({sample_circle(n, seed) for n in range(50) for seed in (0, 1)}) == 100
    for options in ({"seed": 1, "size": 32}, {"size": 64}):
        with pytest.raises(UserError, match="name another folder"):
            build_fill50k(tmp_path / "a", 4, workers=1, **options)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is none of circles"):
        build_fill50k(tmp_path / "full", 4, 32)
    with pytest.raises(UserError, match="at least 32"):
        build_fill50k(tmp_path / "tiny", 4, 16)


def test_the_data_floor_reads_it(tmp_path):
    build_fill50k(tmp_path, 5, 64, first=1000, workers=1)
    lines = [json.loads(line) for line in (tmp_path / "prompt.json").read_text().splitlines()]
    assert lines[0] == {
        "source": "source/1000.png",
        "target": "target/1000.png",
        "prompt": sample_circle(1000).prompt,
    }
    dataset = open_dataset(tmp_path, condition="circles", size=64)
    assert len(dataset) == 5
    example = dataset[2]
    target, source = draw_circle(sample_circle(1002), 64)
    assert example.caption == sample_circle(1002).prompt
    assert np.array_equal(np.asarray(example.image), target)
    assert np.array_equal(np.asarray(example.hint), source)
    assert Image.open(tmp_path / "target" / "1002.png").mode == "RGB"
