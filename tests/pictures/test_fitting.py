"""Pictures in frames of another shape: A1111's resize modes, and its names for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zeroconv.conditions import CONDITIONS, resize_hint
from zeroconv.errors import UserError
from zeroconv.pictures import RESIZE_MODES, fit_into, resize_mode
from zeroconv.pictures.fitting import border_colour

SIDES = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("names", "mode"),
    [
        (("Just Resize", "just resize", 0, "0", "stretch"), "stretch"),
        (("Crop and Resize", "Inner Fit (Scale to Fit)", "Scale to Fit (Inner Fit)", 1), "crop"),
        (("Resize and Fill", "Outer Fit (Shrink to Fit)", "Envelope (Outer Fit)", 2), "fill"),
    ],
)
def test_resize_mode_knows_a1111s_names_and_numbers(names: tuple, mode: str) -> None:
    assert mode in RESIZE_MODES and all(resize_mode(name) == mode for name in names)


@pytest.mark.parametrize("name", ["", "cover", 3, -1, True, None, "crop " * 100])
def test_resize_mode_of_another_name_is_one_sentence(name: object) -> None:
    with pytest.raises(UserError, match="choose stretch") as refused:
        resize_mode(name)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 250


@given(picture=st.tuples(SIDES, SIDES), frame=st.tuples(SIDES, SIDES))
@settings(max_examples=200, deadline=None)
def test_fit_into_covers_or_lies_inside_and_keeps_the_shape(
    picture: tuple[int, int], frame: tuple[int, int]
) -> None:
    assert fit_into(picture, frame, "stretch").size == frame
    crop, fill = fit_into(picture, frame, "crop"), fit_into(picture, frame, "fill")
    for axis in (0, 1):
        assert fill.corner[axis] >= 0 and fill.corner[axis] + fill.size[axis] <= frame[axis]
        assert abs(2 * fill.corner[axis] + fill.size[axis] - frame[axis]) <= 1  # in the middle
        assert crop.corner[axis] <= 0 and crop.corner[axis] + crop.size[axis] >= frame[axis]
    assert any(fill.size[axis] == frame[axis] for axis in (0, 1))
    assert any(crop.size[axis] == frame[axis] for axis in (0, 1))
    assert crop.size[0] * crop.size[1] <= 64_000_000

    # the shape is kept, to a pixel of rounding
    scale = min(frame[0] / picture[0], frame[1] / picture[1])
    assert all(abs(max(1, picture[a] * scale) - fill.size[a]) <= 0.5001 for a in (0, 1))


def test_a_long_strip_is_cut_before_it_is_enlarged() -> None:
    fit = fit_into((4, 100_000), (1024, 1024), "crop")
    assert fit.size == (1024, 1024) and fit.box == (0, 49_998, 4, 50_002)


def striped(width: int, height: int) -> np.ndarray:
    """A colour a quarter, which says where a pixel came from, and a border of its own."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (200, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 200, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 200)
    pixels[[0, -1]] = pixels[:, [0, -1]] = (9, 9, 9)
    return pixels


@pytest.mark.parametrize("rule", ["area", "nearest", "lines"])
def test_resize_and_fill_continues_the_border_and_crop_cuts(rule: str) -> None:
    hint = Image.fromarray(striped(80, 40))
    filled = np.asarray(resize_hint(hint, (60, 60), rule, "fill"))
    assert filled.shape == (60, 60, 3)
    assert (filled[:14] == 9).all() and (filled[-14:] == 9).all()
    assert filled[22, 10].argmax() == 0 and filled[22, 50].argmax() == 1
    cropped = np.asarray(resize_hint(hint, (40, 40), rule, "crop"))
    assert (cropped == striped(80, 40)[:, 20:60]).all()
    stretched = np.asarray(resize_hint(hint, (40, 40), rule, "stretch"))
    assert stretched[10, 10].argmax() == 0 and stretched[10, 30].argmax() == 1


def test_resize_and_fill_invents_no_class() -> None:
    half = np.zeros((20, 40, 3), np.uint8)
    half[:, :19], half[:, 19:] = (200, 10, 0), (0, 30, 90)
    assert border_colour(half, invent=False).tolist() == [0, 30, 90]
    filled = np.asarray(resize_hint(Image.fromarray(half), (40, 40), "nearest", "fill"))
    assert {tuple(c) for c in filled.reshape(-1, 3).tolist()} == {(200, 10, 0), (0, 30, 90)}


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("condition", [*CONDITIONS, None])
def test_every_conditions_hints_are_brought_into_every_shape(
    condition: str | None, mode: str
) -> None:
    rule = None if condition is None else CONDITIONS[condition].resize
    rng = np.random.default_rng(0)
    hole = rng.integers(0, 256, (30, 50, 4), np.uint8)
    hole[..., 3] = np.where(rng.random((30, 50)) < 0.5, 0, 255)
    deep = Image.fromarray(rng.integers(0, 65536, (30, 50)).astype(np.uint16))
    for hint in (Image.fromarray(hole), Image.fromarray(hole[..., :3]), deep):
        for size in ((50, 30), (64, 64), (16, 48), (7, 1), (1, 9)):
            fitted = resize_hint(hint, size, rule, mode)  # type: ignore[arg-type]
            assert fitted.size == size and fitted.mode == ("I;16" if hint is deep else hint.mode)
