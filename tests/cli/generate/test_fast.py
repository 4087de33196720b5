"""`--fast` of generate, upscale and evaluate: recorded, made again by `--from`, refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from zeroconv.backbones.devices import pick_dtype
from zeroconv.generation.metadata.record import read_info


def test_fast_is_kept_in_the_picture_and_made_again(zeroconv, models, photo, tmp_path):
    def pixels(name, *words, code=0):
        made = zeroconv("generate", *words, "--out", tmp_path / name)
        assert made.exit_code == code, made.output
        with Image.open(tmp_path / name) as picture:
            return np.asarray(picture.convert("RGB"))

    control = ("--control", f"{models / 'canny'}:{photo}", "--base", models / "base", "--steps", 2)
    fast = pixels("fast.png", "a ball", *control, "--fast", "x3")
    exact = pixels("exact.png", "a ball", *control)
    assert (fast != exact).any()
    assert read_info(tmp_path / "fast.png")["fast"] == "deep=3,branch=2,difference=2"
    assert read_info(tmp_path / "exact.png")["fast"] == "off"
    again = pixels("again.png", "--from", tmp_path / "fast.png")
    assert (again == fast).all()
    assert (pixels("off.png", "--from", tmp_path / "fast.png", "--fast", "off") == exact).all()
    refused = zeroconv("generate", "a ball", "--fast", "turbo", "--out", tmp_path / "no.png")
    assert refused.exit_code == 2 and "it is off, x2, x3" in refused.output


@pytest.mark.slow
def test_fast_upscale_is_the_librarys_and_recorded(zeroconv, models, photo, tmp_path):
    from zeroconv.backbones import load_backbone
    from zeroconv.generation import upscale

    quick = ("--base", models / "base", "--steps", 3, "--factor", 1, "--strength", 1)
    made = zeroconv("upscale", photo, *quick, "--fast", "x2", "--out", tmp_path / "large.png")
    assert made.exit_code == 0, made.output
    assert read_info(tmp_path / "large.png")["fast"] == "deep=2,branch=2,difference=2"
    base = load_backbone(str(models / "base"), dtype=pick_dtype("auto", "cpu"))
    options = {"factor": 1, "strength": 1, "steps": 3, "scheduler": "unipc"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast, exact = (upscale(base, photo, **options, fast=fast) for fast in ("x2", "off"))
    with Image.open(tmp_path / "large.png") as picture:
        assert (np.asarray(picture) == np.asarray(fast)).all()
    assert (np.asarray(fast) != np.asarray(exact)).any()
    refused = zeroconv("upscale", photo, "--fast", "turbo", "--out", tmp_path / "no.png")
    assert refused.exit_code == 2 and "it is off, x2, x3" in refused.output


def test_fast_evaluate_measures_the_mode(zeroconv, models, monkeypatch):
    from zeroconv import evaluation
    from zeroconv.errors import UserError

    asked = []

    def measured(control, *, fast, **more):
        asked.append(fast)
        raise UserError("enough")

    monkeypatch.setattr(evaluation, "evaluate", measured)
    for fast in (("--fast", "x3"), ()):
        made = zeroconv("evaluate", models / "canny", "--base", models / "base", *fast)
        assert made.exit_code == 2 and "enough" in made.output
    assert asked == ["x3", "off"]
