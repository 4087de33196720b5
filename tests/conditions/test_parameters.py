"""Parameters of hints: each has a range; out of it a sentence, within it a hint, both at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zeroconv import conditions
from zeroconv.cli.annotate import parse_conditions, parse_params
from zeroconv.conditions import CONDITIONS, edges
from zeroconv.conditions.parameters import ranges_of
from zeroconv.errors import UserError

PARAMETERS = sorted((c.name, name) for c in conditions.CONDITIONS.values() for name in c.defaults)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8))


def test_there_are_parameters() -> None:
    assert len(PARAMETERS) >= 16 and ("shuffle", "reach") in PARAMETERS


@pytest.mark.parametrize(("condition", "name"), PARAMETERS)
def test_every_parameter_has_a_range_that_its_default_is_in(condition: str, name: str) -> None:
    entry = conditions.CONDITIONS[condition]
    allowed = ranges_of(entry.draw)[name]
    assert np.isfinite([float(allowed.least), float(allowed.most)]).all()
    assert allowed.holds(entry.defaults[name])


@pytest.mark.parametrize(("condition", "name"), PARAMETERS)
def test_a_parameter_out_of_range_is_one_sentence(condition: str, name: str) -> None:
    for value in (
        1e9 if name != "seed" else 1e30,
        -1e9,
        10**400,
        1e300,
        float("nan"),
        float("inf"),
        -float("inf"),
    ):
        with pytest.raises(
            UserError, match=f"{condition} needs {name} as .*number from .* to .*, not "
        ):
            conditions.annotate(condition, PICTURE, **{name: value})
        with pytest.raises(UserError, match=f"{condition} needs {name}"):
            parse_conditions(condition, {name: value})
    for wrong in ("3", None, [1], True):
        with pytest.raises(TypeError, match=f"{condition}'s {name} is a number"):
            conditions.annotate(condition, PICTURE, **{name: wrong})


@pytest.mark.parametrize(("condition", "name"), PARAMETERS)
def test_a_parameter_at_its_ends_draws_at_once(condition: str, name: str) -> None:
    entry = conditions.CONDITIONS[condition]
    allowed, is_integer = ranges_of(entry.draw)[name], isinstance(entry.defaults[name], int)
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 1536, 3), np.uint8))
    for end, open_end, inside in (
        (allowed.least, allowed.above, 1e-6),
        (allowed.most, allowed.below, -1e-6),
    ):
        value = end + inside if open_end else end
        params = {name: int(value) if is_integer else value}
        if (condition, name) == ("canny", "low"):
            params["high"] = 10_000
        if (condition, name) == ("canny", "high"):
            params["low"] = 0
        began = time.monotonic()
        assert conditions.annotate(condition, big, **params).size == big.size
        assert time.monotonic() - began < 5


def test_parameters_that_are_integers_are_not_cut() -> None:
    with pytest.raises(
        UserError, match=r"lines needs width as a whole number from 1 to 100, not 2\.5"
    ):
        conditions.annotate("lines", PICTURE, width=2.5)
    assert conditions.annotate("lines", PICTURE, width=2.0).size == PICTURE.size


@settings(max_examples=150, deadline=20_000)
@given(
    st.sampled_from(PARAMETERS),
    st.one_of(st.floats(), st.integers(), st.text("0123456789-+.eE_xnaif", max_size=8)),
)
def test_any_value_is_a_hint_or_one_sentence(parameter: tuple[str, str], value: object) -> None:
    condition, name = parameter
    message = ""
    try:
        params = parse_params([f"{name}={value}"])
        parse_conditions(condition, params)
        conditions.annotate(condition, PICTURE, **params)
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


def test_a_broad_blur_is_that_of_the_small_picture() -> None:
    picture = Image.fromarray(
        np.kron(np.array([[0, 255]], np.uint8), np.ones((64, 700), np.uint8))
    ).convert("RGB")
    just, more = (
        np.asarray(conditions.annotate("blur", picture, sigma=s), float) for s in (0.1828, 0.1829)
    )
    assert np.abs(just - more).max() < 6  # of 255, where the two ways meet


@pytest.mark.parametrize("condition", [name for name, one in CONDITIONS.items() if one.draw])
@pytest.mark.parametrize("shape", [(24, 60_000, 3), (60_000, 24, 3)])
def test_a_long_strip_is_drawn_in_seconds_or_refused(
    condition: str, shape: tuple[int, ...]
) -> None:
    picture = np.zeros(shape, np.uint8)
    picture[:20, :20] = np.random.default_rng(0).integers(0, 255, (20, 20, 3))
    draw = CONDITIONS[condition].draw
    assert draw is not None
    began = time.process_time()
    if condition == "shuffle":
        with pytest.raises(UserError, match="32,766"):
            draw(picture)
    else:
        assert draw(picture).shape[:2] == shape[:2]
    assert time.process_time() - began < 5


def test_a_broad_scribble_is_that_of_the_exact_pen(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.full((600, 700, 3), 30, np.uint8)
    picture[100:300, 200:420] = 220
    fast = edges.draw_scribble(picture, width=0.11)
    monkeypatch.setattr(edges, "_BROAD_PEN", 10**6)
    exact = edges.draw_scribble(picture, width=0.11)
    assert 0.05 < float((exact > 0).mean()) < 0.95
    assert float((exact != fast).mean()) < 0.01


def test_a_broad_scribble_of_an_empty_picture_is_empty() -> None:
    assert not edges.draw_scribble(np.zeros((400, 400, 3), np.uint8), width=0.19).any()
