"""A picture tells how it was made, hint included."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.generation.metadata.record import read_info, save_picture

ABOUT = {
    "prompt": "a large red ball, größer",
    "negative": "blur",
    "steps": 20,
    "scheduler": "unipc",
    "cfg": 7.5,
    "seed": 3,
    "base": "playroom",
    "width": 64,
    "height": 64,
    "controls": [{"name": "canny", "scale": 0.8, "start": 0.0, "end": 0.6}],
}


def test_what_is_stored_comes_back_with_the_hint(tmp_path):
    hint = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    picture = Image.new("RGB", (64, 64), "red")
    save_picture(picture, tmp_path / "a.png", ABOUT, [hint])
    about = read_info(tmp_path / "a.png")
    (stored,) = about.pop("hints")
    assert about.pop("inputs") == {}
    assert about == ABOUT and np.array_equal(np.asarray(stored), np.asarray(hint))
    with Image.open(tmp_path / "a.png") as opened:
        text = opened.info["parameters"]
        assert np.array_equal(np.asarray(opened), np.asarray(picture))
    assert text.splitlines()[1] == "Negative prompt: blur"
    assert "Steps: 20, Sampler: UniPC, CFG scale: 7.5, Seed: 3, Size: 64x64" in text
    assert (
        'ControlNet 0: "Model: canny, Weight: 0.8, Guidance Start: 0.0, Guidance End: 0.6"' in text
    )


def test_a_picture_of_somebody_else_says_nothing(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match="does not say"):
        read_info(tmp_path / "b.png")
    with pytest.raises(UserError, match="is missing"):
        read_info(tmp_path / "none.png")
