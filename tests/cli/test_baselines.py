"""A saved baseline on the command line: drawn with, described, refused where it cannot do what is
asked.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.baselines.test_baselines import shake_, small
from zeroconv.backbones import load_backbone


@pytest.fixture
def side(models: Path, tmp_path: Path) -> Path:
    baseline = small("side", load_backbone(str(models / "base")), condition="canny")
    shake_(baseline)
    baseline.save(tmp_path / "side")
    return tmp_path / "side"


def test_it_draws_like_a_control(
    zeroconv, models: Path, photo: Path, side: Path, tmp_path: Path
) -> None:
    words = ("generate", "a ball", "--base", models / "base", "--steps", 2, "--guidance", "cond")
    for name, control in (("with", ("--control", f"{side}:{photo}")), ("without", ())):
        result = zeroconv(
            *words, *control, "--width", 64, "--height", 64, "--out", tmp_path / f"{name}.png"
        )
        assert result.exit_code == 0, result.output
    made, plain = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("with", "without"))
    assert (made != plain).any()


def test_what_it_cannot_do_is_one_line(
    zeroconv, models: Path, photo: Path, side: Path, tmp_path: Path
) -> None:
    words = (
        "generate",
        "a ball",
        "--base",
        models / "base",
        "--control",
        f"{side}:{photo}",
        "--out",
        tmp_path / "x.png",
    )
    result = zeroconv(*words, "--guidance", "resolution")
    assert result.exit_code == 2
    assert "choose both or cond" in result.stderr


def test_info_says_what_it_is(zeroconv, side: Path) -> None:
    report = json.loads(zeroconv("info", side, "--json").stdout)
    assert (report["kind"], report["network"], report["condition"]) == ("baseline", "side", "canny")
    assert report["options"] == {"ratio": 0.5, "start": "zero_conv"}
    assert report["parameters"]["trained"] > 10_000
    assert zeroconv("info", side).exit_code == 0
