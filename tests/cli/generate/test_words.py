"""The small languages of the command line: controls, output names, parameters, pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from zeroconv.cli.annotate import parse_params
from zeroconv.cli.generate.controls import ControlSpec, parse_controls
from zeroconv.cli.generate.run import batch_size, output_paths
from zeroconv.errors import UserError
from zeroconv.pictures import open_picture


def test_equals_takes_the_hint_and_a_colon_draws_it() -> None:
    taken, drawn = parse_controls(["canny=edges.png", "path/to/control:photo.jpg"], [], [], [])
    assert taken == ControlSpec("canny", Path("edges.png"), draw=False)
    assert drawn == ControlSpec("path/to/control", Path("photo.jpg"), draw=True)


def test_the_first_sign_decides() -> None:
    (spec,) = parse_controls(["canny=a:b=c.png"], [], [], [])
    assert (spec.name, spec.picture, spec.draw) == ("canny", Path("a:b=c.png"), False)


def test_strengths_and_windows_come_once_or_once_for_each() -> None:
    texts = ["canny=a.png", "depth=b.png"]
    first, second = parse_controls(texts, [0.5], [0.1, 0.2], [])
    assert (first.scale, first.start, first.end) == (0.5, 0.1, 1.0)
    assert (second.scale, second.start, second.end) == (0.5, 0.2, 1.0)
    with pytest.raises(UserError, match="--end is given 3 times for 2 controls"):
        parse_controls(texts, [], [], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("text", ["canny", "=edges.png", ":photo.jpg", "canny=", "canny: "])
def test_half_a_control_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write NAME=PICTURE"):
        parse_controls([text], [], [], [])


def test_one_picture_is_the_file_and_several_are_numbered(tmp_path: Path) -> None:
    assert output_paths(Path("ball.png"), 1) == [Path("ball.png")]
    assert output_paths(Path("a/ball.png"), 2) == [Path("a/ball-0.png"), Path("a/ball-1.png")]
    assert output_paths(Path("balls"), 2) == [Path("balls/0000.png"), Path("balls/0001.png")]
    assert output_paths(tmp_path, 1) == [tmp_path / "0000.png"]
    with pytest.raises(UserError, match=r"\.png"):
        output_paths(Path("ball.gif"), 1)


def test_large_pictures_are_made_one_by_one_and_small_ones_together() -> None:
    assert batch_size((128, 128), "cpu") == batch_size((64, 64), "cpu") == 8
    assert batch_size((512, 512), "cpu") == 1
    assert batch_size((512, 512), "cuda") == 8
    assert batch_size((8192, 8192), "cuda:1") == 1


def test_pictures_come_upright_and_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    clear.save(tmp_path / "clear.png")
    opened = open_picture(tmp_path / "clear.png")
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (255, 0, 0)
    assert opened.getpixel((3, 3)) == (255, 255, 255)
    turned = Image.new("RGB", (4, 2))
    exif = turned.getexif()
    exif[0x0112] = 6  # a camera held upright
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (2, 4)


def test_parameters_are_numbers() -> None:
    assert parse_params(["low=50", "sigma=1.5"]) == {"low": 50, "sigma": 1.5}
    with pytest.raises(UserError, match="NAME=NUMBER"):
        parse_params(["low=many"])


@pytest.mark.parametrize("text", ["low=١", "low=1_000", "low=²", "=1", "low", "low=nan", "low=--5"])
def test_what_is_no_number_of_ours_is_no_parameter(text: str) -> None:
    with pytest.raises(UserError, match="NAME=NUMBER"):
        parse_params([text])
    assert parse_params(["low= 5", "high=+6", "x=-1"]) == {"low": 5, "high": 6, "x": -1}
