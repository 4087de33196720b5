"""`generate --fast`: recorded in the picture, made again by `--from`."""

from __future__ import annotations

import numpy as np
from PIL import Image

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
