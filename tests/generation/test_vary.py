"""`--vary`: every combination at its place on the sheet."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.vary import Axis, combinations, draw_sheet, parse_axis, vary


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


def holds(sheet: Image.Image, picture: Image.Image) -> tuple[int, int]:
    """Where the picture stands on the sheet: x, y of its corner. Raises AssertionError."""
    sheet_pixels, part = np.asarray(sheet), np.asarray(picture)
    for y, x in np.argwhere((sheet_pixels == part[0, 0]).all(2)):
        cut = sheet_pixels[y : y + part.shape[0], x : x + part.shape[1]]
        if cut.shape == part.shape and (cut == part).all():
            return int(x), int(y)
    raise AssertionError("the picture is not on the sheet")


def test_vary_draws_what_generate_makes_and_where(backbone) -> None:
    net = randomise_(ControlNet.from_backbone(backbone))
    control = Control(net, Image.new("RGB", (64, 64), "white"))
    axes = [parse_axis("steps=1,2"), parse_axis("control_scale=0,1.5"), parse_axis("cfg=1, 3")]
    heard = []
    sheet = vary(
        backbone, "a", [control], axes, finished=lambda *about: heard.append(about[:2]), seed=5
    )
    assert heard == [(i, 8) for i in range(1, 9)]
    corners = {}
    for combo in combinations(axes):
        changed = Control(net, control.hint, scale=combo["control-scale"])
        options = {"steps": combo["steps"], "cfg": combo["cfg"], "seed": 5}
        (picture,) = generate(backbone, "a", [changed], **options)
        corners[tuple(combo.values())] = holds(sheet, picture)
    for (steps, scale, cfg), (x, y) in corners.items():
        assert (x == corners[2, scale, cfg][0]) == (steps == 2)
        assert (y == corners[steps, 1.5, cfg][1]) == (scale == 1.5)
        assert y < corners[steps, scale, 3.0][1] or cfg == 3.0


def test_vary_labels_are_drawn_beside_the_pictures() -> None:
    axes = [Axis("a", ("x" * 40,)), Axis("b", (1.0, 2.0))]
    sheet = np.asarray(draw_sheet(axes, [Image.new("RGB", (64, 64), "white")] * 2))
    assert (sheet < 128).any(2)[:, :60].any() and (sheet < 128).any(2)[:40].any()
    assert sheet.shape[1] > 40 * 5  # a long label is not cut


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["steps"], "not understood"),
        (["stepps=1"], "knows no 'stepps'"),
        (["steps=1.5"], "no whole number"),
        (["cfg=x"], "no number"),
        (["cfg="], "no number"),
        (["schedule=karras,"], "empty value"),
        (["steps=1", "steps=2"], "given twice"),
        (["steps=0,1"], "steps is 0"),
        (["cfg=1e9"], "cfg is"),
        (["control-scale=1"], "needs a --control"),
        (["guidance=hard"], "resolution"),
        (["scheduler=ddim,euler", "schedule=karras"], "no noise levels"),
        (["eta=2"], "eta is 2"),
    ],
)
def test_vary_refuses_before_the_first_picture(backbone, monkeypatch, texts, words) -> None:
    monkeypatch.setattr(backbone, "encode", lambda *_: pytest.fail("a picture was begun"))
    with pytest.raises(UserError, match=words):
        vary(backbone, "a", [], [parse_axis(text) for text in texts])


def test_vary_of_many_pictures_is_noted_and_a_large_sheet_is_shrunk() -> None:
    axes = [Axis("seed", tuple(range(101)))]
    with pytest.warns(UserWarning, match="makes 101 pictures"):
        assert len(combinations(axes)) == 101
    with pytest.raises(UserError, match="10000 at most"):
        combinations([Axis("seed", tuple(range(200))), Axis("steps", tuple(range(1, 52)))])
    with pytest.warns(UserWarning, match="shrunk to 8192"):
        sheet = draw_sheet(axes, [Image.new("RGB", (128, 64))] * 101)
    assert max(sheet.size) == 8192


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["scheduler=ddim,unipc", "eta=0.5"], "unipc has no eta"),
        (["control-start=0,0.9", "control-end=0.5,1"], "window runs from 0.9 to 0.5"),
        (["seed=1,-1"], "seed is -1"),
    ],
)
def test_vary_refuses_a_late_combination_before_the_first_picture(backbone, texts, words) -> None:
    control = Control(ControlNet.from_backbone(backbone), Image.new("RGB", (64, 64)))
    done: list[int] = []
    with pytest.raises(UserError, match=words):
        axes = [parse_axis(text) for text in texts]
        vary(backbone, "a", [control], axes, lambda *a: done.append(1), steps=1, cfg=1.0)
    assert not done


@pytest.mark.parametrize(("end", "noted"), [(0.2, True), (0.5, False)])
def test_generate_notes_a_window_without_a_step(backbone, end, noted) -> None:
    control = Control(ControlNet.from_backbone(backbone), Image.new("RGB", (64, 64)), end=end)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generate(backbone, "a", [control], steps=2, cfg=1.0)
    assert any("no step of 2 is within" in str(one.message) for one in caught) == noted
