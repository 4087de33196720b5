"""Upscaling: any size, bounded memory, no seams, colours kept."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import randomise_
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control
from zeroconv.generation import upscale as module_function
from zeroconv.generation.upscaling import upscale


@pytest.fixture
def photo() -> Image.Image:
    y, x = np.mgrid[:60, :84]
    waves = np.stack([128 + 60 * np.sin(x / 9), 2 * y, 90 + 40 * np.cos((x + y) / 7)], 2)
    return Image.fromarray(waves.astype(np.uint8))


def coarse_difference(made: Image.Image, source: Image.Image) -> float:
    """Mean difference of pictures of 6×4 pixels, in levels."""
    pair = [np.asarray(p.resize((6, 4), Image.Resampling.BOX), float) for p in (made, source)]
    return float(np.abs(pair[0] - pair[1]).mean())


def test_upscale_of_any_size_keeps_colours(small, photo) -> None:
    few = {"steps": 3, "strength": 0.7, "cfg": 1, "tile": 64}
    seen: list[tuple[int, int]] = []
    made = upscale(small, photo, 2.3, **few, callback=lambda *done: seen.append(done))
    assert made.size == (193, 138) and seen[-1][0] == seen[-1][1] == len(seen)
    assert module_function is upscale
    assert coarse_difference(made, photo) < 3
    free = upscale(small, photo, 2.3, **few, keep_colours=False)
    assert coarse_difference(free, photo) > 8  # a base of random weights
    again = upscale(small, photo, 2.3, **few)
    assert (np.asarray(again) == np.asarray(made)).all()


def test_upscale_draws_the_hints_of_each_tile(small, photo) -> None:
    net = randomise_(ControlNet.from_backbone(small, condition="tile"))
    few = {"steps": 2, "strength": 0.5, "cfg": 1, "tile": 64}
    made = upscale(small, photo, 1, controls=[Control(net, None)], **few)
    without = upscale(small, photo, 1, **few)
    assert (np.asarray(made) != np.asarray(without)).any()
    nameless = randomise_(ControlNet.from_backbone(small))
    with pytest.raises(UserError, match="what its hints show"):
        upscale(small, photo, 1, controls=[Control(nameless, None)], **few)


def test_upscale_has_no_seams_and_takes_bounded_memory(small, monkeypatch) -> None:
    """Tiles that differ from one another by noise: the edges are no steeper than the rest."""
    dice = np.random.default_rng(0)

    def made(backbone, prompt, controls, **options):
        source = np.asarray(options["image"], int)
        grain = dice.integers(-9, 10, source.shape) + dice.integers(-12, 13)
        return [Image.fromarray(np.clip(source + grain, 0, 255).astype(np.uint8))]

    monkeypatch.setattr("zeroconv.generation.upscaling.generate", made)
    peaks = []
    for side in (64, 256):
        source = Image.new("RGB", (side, side), (120, 130, 140))
        tracemalloc.start()
        result = upscale(small, source, 4, tile=64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    row = 4 * 256 * 64 * 3
    assert peaks[1] < 4 * 4 * 256 * 256 * 3 + 6 * row  # the result, and one row of tiles
    steps = np.abs(np.diff(np.asarray(result, float), axis=1)).mean((0, 2))
    edges = steps[[e - 1 for e in range(48, 950, 48)]].mean()
    assert edges < 1.1 * steps.mean()


def test_upscale_guides_tiles_only_where_something_holds_them(small, photo, monkeypatch) -> None:
    """Else guidance draws the whole prompt into each."""
    asked: list[float | None] = []

    def made(backbone, prompt, controls, **options):
        asked.append(options.get("cfg"))
        return [options["image"]]

    monkeypatch.setattr("zeroconv.generation.upscaling.generate", made)
    control = {name: ControlNet.from_backbone(small, condition=name) for name in ("tile", "canny")}
    ways = [
        ({}, 1.0),
        ({"cfg": None, "controls": [Control(control["canny"], None)]}, 1.0),
        ({"controls": [Control(control["tile"], None)]}, None),
        ({"negative": "blur"}, None),
        ({"cfg": 5.0}, 5.0),
        ({"factor": 1}, None),  # one tile
    ]
    for options, cfg in ways:
        asked.clear()
        options = {"factor": 2, **options}
        upscale(small, photo.resize((64, 64)), options.pop("factor"), tile=64, **options)
        assert set(asked) == {cfg}, options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"factor": 17}, "factor is 17"),
        ({"factor": float("nan")}, "factor is nan"),
        ({"strength": 0}, "strength is 0"),
        ({"tile": 60}, "multiple of"),
        ({"overlap": 60, "tile": 64}, "overlap is 60"),
        ({"factor": 16, "picture": Image.new("RGB", (2000, 2000))}, "are allowed"),
    ],
)
def test_upscale_refuses(small, photo, options, sentence) -> None:
    picture = options.pop("picture", photo)
    with pytest.raises(UserError, match=sentence):
        upscale(small, picture, **options)


def test_upscale_notes_tiles_that_hardly_overlap(small, photo) -> None:
    with pytest.warns(UserWarning, match="seams can show"):
        upscale(small, photo, 1, tile=64, overlap=0, steps=2, strength=0.5, cfg=1)
