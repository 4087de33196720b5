"""`generate --from PICTURE` gives the same bits; what is given on the command line changes it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zeroconv.cli.generate.again_words import read_again
from zeroconv.errors import UserError
from zeroconv.generation.metadata.record import read_info, save_picture


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture
def run(zeroconv) -> Callable[..., str]:
    def call(*words: object, code: int = 0) -> str:
        result = zeroconv("generate", *words)
        assert result.exit_code == code, result.output
        return result.stderr

    return call


def test_again_needs_no_other_picture_and_keeps_what_it_is(
    run, once, models, photo, tmp_path
) -> None:
    control = ("--control", f"{models / 'canny'}:{photo}", "--region", photo)
    first = tmp_path / "first.png"
    run("a ball", *control, "--base", models / "base", "--steps", 2, "--out", first)
    photo.unlink()
    for suffix in ("webp", "jpg", "png"):  # each from the one before
        run("--from", first, "--out", tmp_path / f"next.{suffix}")
        before, first = read_info(first), tmp_path / f"next.{suffix}"
        after = read_info(first)
        assert (np.asarray(before.pop("hints")[0]) == np.asarray(after.pop("hints")[0])).all()
        assert (
            np.asarray(before["inputs"].pop("mask 0")) == np.asarray(after["inputs"].pop("mask 0"))
        ).all()
        before.pop("options"), after.pop("options")  # the base's own guidance is settled there
        assert before == after
    assert (pixels(tmp_path / "next.png") == pixels(tmp_path / "next.webp")).all()
    assert "is the input itself" in run("--from", first, "--out", first, code=2)


def test_again_takes_changes(run, once, models, photo, tmp_path) -> None:
    base = ("--base", models / "base")
    controls = [word for name in ("canny", "depth")
                for word in ("--control", f"{models / name}={photo}")]  # fmt: skip
    run("a ball", *controls, *base, "--steps", 2, "--cfg", 1, "--out", tmp_path / "a.png")
    changes = ("--steps", 1, "--scale", 0.5, "--scale", 0.25, "--seed", 9)
    run("a cube", "--from", tmp_path / "a.png", *changes, "--out", tmp_path / "b.png")
    run("a cube", *controls, *changes, *base, "--cfg", 1, "--out", tmp_path / "c.png")
    assert (pixels(tmp_path / "b.png") == pixels(tmp_path / "c.png")).all()
    assert read_info(tmp_path / "b.png")["prompt"] == "a cube"
    run("--from", tmp_path / "a.png", "--count", 2, "--out", tmp_path / "e.png")
    seeds = [read_info(tmp_path / f"e-{i}.png")["seed"] for i in range(2)]
    assert seeds == [0, 1]
    other = ("--control", f"{models / 'canny'}={photo}")
    run("--from", tmp_path / "a.png", *other, "--out", tmp_path / "d.png")
    assert len(read_info(tmp_path / "d.png")["controls"]) == 1
    assert "given 3 times" in run("--from", tmp_path / "a.png", *["--scale", 1] * 3, code=2)


def test_again_draws_a_sheet_again(run, once, models, tmp_path) -> None:
    words = ("a ball", "--base", models / "base", "--cfg", 1, "--vary", "steps=1,2")
    run(*words, "--out", tmp_path / "a.png")
    run("--from", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()


def test_again_notes_another_machine(run, once, models, tmp_path, monkeypatch) -> None:
    words = ("a ball", "--base", models / "base", "--cfg", 1, "--steps", 1)
    run(*words, "--out", tmp_path / "a.png")
    monkeypatch.setattr("zeroconv.cli.generate.again_words.machine", lambda: {
        "torch": "9", "machine": "abacus", "threads": 7})  # fmt: skip
    stderr = run("--from", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert "here abacus" in stderr and "differ by a level" in stderr


def test_again_takes_pictures_of_a1111_and_says_what_is_not_read(
    run, once, models, tmp_path
) -> None:
    text = PngInfo()
    text.add_text(
        "parameters",
        "a ball\nNegative prompt: blur\nSteps: 2, Sampler: Euler a, Schedule type: Karras, "
        "CFG scale: 1.0, Seed: 5, Size: 64x64, Model: other, Face restoration: GFPGAN",
    )
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=text)
    base = ("--base", models / "base", "--dtype", "float32")
    stderr = run("--from", tmp_path / "a.png", *base, "--out", tmp_path / "b.png")
    assert "Face restoration" in stderr and "other" not in stderr
    own = ("--scheduler", "euler_a", "--schedule", "karras", "--noise", "gpu", "--negative", "blur")
    run("a ball", *own, *base, "--steps", 2, "--cfg", 1, "--seed", 5, "--out", tmp_path / "c.png")
    assert (pixels(tmp_path / "b.png") == pixels(tmp_path / "c.png")).all()


def test_again_refuses_pictures_that_say_nothing(run, photo, tmp_path) -> None:
    assert "does not say how it was made" in run("--from", photo, code=2)
    assert "missing" in run("--from", tmp_path / "none.png", code=2)
    assert "a prompt is missing" in run(code=2)


def test_again_without_hints_says_so(run, once, models, photo, tmp_path, monkeypatch) -> None:
    control = ("--control", f"{models / 'canny'}={photo}")
    monkeypatch.setattr("zeroconv.generation.metadata.record.MOST_TEXT", 10)
    run("a ball", *control, "--base", models / "base", "--steps", 1, "--out", tmp_path / "a.png")
    assert "does not hold the hints" in run("--from", tmp_path / "a.png", code=2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    "prompt hints inputs options controls adapters batch seed steps cfg lora made_with "
    "width".split()
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_again_meets_hostile_words_with_one_sentence(tmp_path: Path, about: dict) -> None:
    path = tmp_path / "hostile.png"
    text = PngInfo()
    text.add_itxt("zeroconv", json.dumps({"prompt": "x", "hints": [], **about}))
    Image.new("RGB", (8, 8)).save(path, pnginfo=text)
    with suppress(UserError):  # and nothing else
        read_again(path)


@pytest.mark.parametrize("name", ["steps", "cfg", "seed", "lora", "scheduler", "width", "noise"])
@pytest.mark.parametrize("value", [None, "x", [], ["x"], 1e300, -1, True, "9" * 5000])
def test_again_checks_values_as_the_command_line_does(zeroconv, tmp_path, name, value) -> None:
    if value is None or (name == "lora" and value == []):
        return
    path = tmp_path / "a.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_picture(Image.new("RGB", (8, 8)), path, {"prompt": "x", "width": 8, name: value})
    words = ("--base", "no such base", "--out", tmp_path / "b.png")
    result = zeroconv("generate", "--from", path, *words)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_again_names_the_picture_s_value_that_is_refused(run, tmp_path) -> None:
    text = PngInfo()
    text.add_text("parameters", "a\nSteps: 2, Sampler: Euler, CFG scale: nan, Seed: 1, Size: 64x64")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=text)
    message = run("--from", tmp_path / "a.png", "--out", tmp_path / "b.png", code=2)
    assert "'nan' is what the picture of --from holds" in message


def test_again_of_another_picture_takes_its_shape(run, once, models, photo, tmp_path) -> None:
    base = ("--base", models / "base", "--schedule", "trailing", "--steps", 2)
    first, out = tmp_path / "first.png", tmp_path / "out.png"
    run("a", *base, "--image", photo, "--out", first)
    for words, size in {
        ("--expand", "left=32"): (128, 64),
        ("--image", photo, "--height", "32"): (96, 32),
        ("--seed", "1"): (96, 64),
    }.items():
        run("--from", first, *words, "--out", out)
        with Image.open(out) as picture:
            assert picture.size == size
    Image.new("RGB", (40, 72)).save(tmp_path / "high.png")
    run("--from", first, "--image", tmp_path / "high.png", "--out", out)
    with Image.open(out) as picture:
        assert picture.size == (40, 72)
