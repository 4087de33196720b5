"""What the top of the package offers: a hint, a training and a measurement, each in one call."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zeroconv
from tests.helpers.tiny import tiny_backbone
from zeroconv.backbones import load_backbone
from zeroconv.baselines import load_net
from zeroconv.conditions import CONDITIONS
from zeroconv.errors import UserError

ROOT = Path(zeroconv.__file__).parent


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.full((48, 64, 3), 200, np.uint8)
    pixels[10:30, 20:40] = (200, 30, 30)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", ["pil", "array", "path", "text"])
def test_annotate_takes_a_picture_in_every_form(photo, form, tmp_path) -> None:
    photo.save(tmp_path / "photo.png")
    path = tmp_path / "photo.png"
    given = {"pil": photo, "array": np.asarray(photo), "path": path, "text": str(path)}[form]

    hint = zeroconv.annotate("canny", given)

    assert isinstance(hint, Image.Image) and hint.size == photo.size and hint.mode == "RGB"
    assert np.asarray(hint).max() == 255
    assert hint.tobytes() == zeroconv.conditions.annotate("canny", photo).tobytes()


def test_annotate_passes_parameters_and_refuses_unknown_names(photo) -> None:
    faint = photo.point(lambda value: 100 + value // 8)
    assert not np.asarray(zeroconv.annotate("canny", faint, low=200, high=250)).any()
    with pytest.raises(UserError, match="did you mean 'canny'"):
        zeroconv.annotate("cany", photo)


def test_train_takes_the_path_of_a_recipe_or_a_recipe(tmp_path) -> None:
    (tmp_path / "bad.yaml").write_text("out: here\nnonsense: 1\n")
    with pytest.raises(UserError, match=r"bad\.yaml: "):
        zeroconv.train(tmp_path / "bad.yaml")
    with pytest.raises(UserError, match=r"bad\.yaml: "):
        zeroconv.train(str(tmp_path / "bad.yaml"), overrides=["training.steps=3"])


@pytest.mark.slow
def test_evaluate_knows_a_control_by_its_condition() -> None:
    few = {"count": 2, "count_none": 0, "steps": 1, "varied": 0}
    report = zeroconv.evaluate("canny", data="playroom:test", **few)
    assert report["condition"] == "canny" and report["n"]["own"] == 2


@pytest.mark.parametrize("name", ["canny", "CANNY", "control_v11p_sd15_canny", "playroom-canny"])
def test_load_knows_the_embedded_control_by_every_name_of_its_condition(name) -> None:
    control = zeroconv.ControlNet.load(name)
    assert control.config["zeroconv"]["condition"] == "canny"


def test_load_of_a_condition_needs_the_playroom_base(tmp_path, monkeypatch) -> None:
    other = tiny_backbone()
    with pytest.raises(UserError, match="only the playroom bases bring a control named 'canny'"):
        zeroconv.ControlNet.load("canny", backbone=other)
    with pytest.raises(UserError, match="only the playroom bases"):
        load_net("canny", other)
    pencil = load_backbone("playroom-pencil")
    assert zeroconv.ControlNet.load("canny", backbone=pencil).device == pencil.device

    control = zeroconv.ControlNet.from_backbone(other, condition="depth")
    control.save_pretrained(tmp_path / "canny")
    monkeypatch.chdir(tmp_path)
    loaded = zeroconv.ControlNet.from_pretrained("canny", backbone=other)  # the folder comes first
    assert loaded.config["zeroconv"]["condition"] == "depth"


def test_find_knows_every_name_and_alias_in_any_case() -> None:
    for condition in CONDITIONS.values():
        for name in (condition.name, *condition.aliases):
            assert zeroconv.conditions.find(name) is condition
            assert zeroconv.conditions.find(name.upper()) is condition
    assert zeroconv.conditions.known("no such") is None is zeroconv.conditions.known(None)


def test_the_package_says_that_it_is_typed() -> None:
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    assert (ROOT / "py.typed").is_file()
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["zeroconv"]
