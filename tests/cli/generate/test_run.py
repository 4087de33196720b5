from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroconv.cli.generate.hinting import draw_hint
from zeroconv.generation.metadata.record import read_info
from zeroconv.pictures import open_picture


@pytest.fixture
def generate(zeroconv, models: Path):
    def run(*words: object):
        result = zeroconv("generate", *words, "--base", models / "base", "--steps", 2)
        assert result.exit_code == 0, result.output
        return result

    return run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_picture_without_control(generate, tmp_path: Path) -> None:
    result = generate("a red ball", "--out", tmp_path / "ball.png")
    assert result.stdout.strip() == str(tmp_path / "ball.png")
    assert Image.open(tmp_path / "ball.png").size == (64, 64)


def test_control_changes_the_picture_and_its_weight_how_much(
    generate, models: Path, photo: Path, tmp_path: Path
) -> None:
    hint = tmp_path / "hint.png"
    draw_hint("canny", open_picture(photo), (64, 64)).save(hint)
    control = ("--control", f"{models / 'canny'}={hint}")
    generate("a ball", "--out", tmp_path / "none.png")
    generate("a ball", *control, "--scale", 0, "--out", tmp_path / "zero.png")
    generate("a ball", *control, "--out", tmp_path / "full.png")
    generate("a ball", *control, "--end", 0.5, "--out", tmp_path / "half.png")
    assert (pixels(tmp_path / "none.png") == pixels(tmp_path / "zero.png")).all()
    assert (pixels(tmp_path / "none.png") != pixels(tmp_path / "full.png")).any()
    assert (pixels(tmp_path / "half.png") != pixels(tmp_path / "full.png")).any()


def test_a_drawn_hint_is_the_annotated_one(
    generate, zeroconv, models: Path, photo: Path, tmp_path: Path
) -> None:
    size = ("--width", 64, "--height", 64, "--schedule", "trailing")
    generate(
        "a ball", "--control", f"{models / 'canny'}:{photo}", *size, "--out", tmp_path / "drawn.png"
    )
    (hint,) = read_info(tmp_path / "drawn.png")["hints"]
    assert (np.asarray(hint) == np.asarray(draw_hint("canny", open_picture(photo), (64, 64)))).all()
    assert np.asarray(hint).any()
    hint.save(tmp_path / "hint.png")
    result = generate(
        "a ball",
        *("--schedule", "trailing"),
        "--control",
        f"{models / 'canny'}={tmp_path / 'hint.png'}",
        "--out",
        tmp_path / "taken.png",
    )
    assert not result.stderr
    assert (pixels(tmp_path / "drawn.png") == pixels(tmp_path / "taken.png")).all()


def test_the_picture_has_the_shape_of_its_hint(generate, models: Path, tmp_path: Path) -> None:
    Image.new("RGB", (256, 64), "black").save(tmp_path / "wide.png")
    generate(
        "a ball",
        "--control",
        f"{models / 'canny'}={tmp_path / 'wide.png'}",
        "--out",
        tmp_path / "out.png",
    )
    width, height = Image.open(tmp_path / "out.png").size
    assert width == 2 * 64
    assert height == 64 // 2 or height == 64


def test_generate_several_pictures_count_and_print_their_seeds(generate, tmp_path: Path) -> None:
    result = generate(
        "a ball", "a cube", "--count", 2, "--seed", 5, "--out", tmp_path / "many", "--json"
    )
    report = json.loads(result.stdout)
    assert [p["seed"] for p in report["pictures"]] == [5, 6, 7, 8]
    assert [p["prompt"] for p in report["pictures"]] == ["a ball", "a ball", "a cube", "a cube"]
    assert all(Path(p["file"]).is_file() for p in report["pictures"])
    assert report["seconds"]["generating"] > 0
    generate("a cube", "--seed", 8, "--out", tmp_path / "alone.png")
    difference = pixels(tmp_path / "alone.png").astype(int) - pixels(tmp_path / "many" / "0003.png")
    assert abs(difference).max() <= 1  # the same picture in any batch, up to rounding


def test_a_picture_says_how_to_make_it_again(
    generate, models: Path, photo: Path, tmp_path: Path
) -> None:
    control = f"{models / 'canny'}:{photo}"
    generate(
        "a ball",
        "--control",
        control,
        "--scale",
        0.5,
        "--scheduler",
        "ddim",
        "--seed",
        3,
        "--out",
        tmp_path / "a.png",
    )
    about = read_info(tmp_path / "a.png")
    assert about["prompt"] == "a ball"
    assert about["seed"] == 3
    assert about["scheduler"] == "ddim"
    assert about["controls"][0]["scale"] == 0.5
    assert "Seed: 3" in Image.open(tmp_path / "a.png").info["parameters"]


def test_two_controls_add_up(generate, models: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "b.png")
    one, two = (
        f"{models / 'canny'}={tmp_path / 'a.png'}",
        f"{models / 'depth'}={tmp_path / 'b.png'}",
    )
    generate("x", "--control", one, "--out", tmp_path / "1.png")
    generate(
        "x",
        "--control",
        one,
        "--control",
        two,
        "--scale",
        1,
        "--scale",
        0,
        "--out",
        tmp_path / "10.png",
    )
    generate("x", "--control", one, "--control", two, "--out", tmp_path / "11.png")
    assert (pixels(tmp_path / "1.png") == pixels(tmp_path / "10.png")).all()
    assert (pixels(tmp_path / "1.png") != pixels(tmp_path / "11.png")).any()


def test_modes_and_masks_come_once_or_once_each(zeroconv, models, photo, tmp_path) -> None:
    Image.new("L", (16, 16), 0).save(tmp_path / "nowhere.png")
    words = ("generate", "a ball", "--base", models / "base", "--steps", 2, "--cfg", 3)
    control = ("--control", f"{models / 'canny'}:{photo}")
    for name, more in {
        "plain": (),
        "masked": (*control, "--region", tmp_path / "nowhere.png"),
        "full": control,
    }.items():
        result = zeroconv(
            *words, *more, "--out", tmp_path / f"{name}.png", "--height", 64, "--width", 64
        )
        assert result.exit_code == 0, result.output
    plain, masked, full = (
        np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("plain", "masked", "full")
    )
    assert (plain == masked).all() and (plain != full).any()
    wrong = zeroconv(*words, *control, "--mode", "loud", "--out", tmp_path / "x.png")
    assert wrong.exit_code == 2 and "balanced" in wrong.stderr
