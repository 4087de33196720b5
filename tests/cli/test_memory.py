"""Options that save memory, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageChops


def test_info_memory_adds_up_and_loads_nothing(zeroconv, models: Path) -> None:
    words = ("info", models / "base", "--memory", "--size", "64", "--controls", "2")
    result = zeroconv(*words, "--dtype", "float32", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["controls"] == 2 and report["size"] == 64 and report["dtype"] == "float32"
    parts = [report[f"{name}: weights"] for name in ("text", "unet and controls", "vae")]
    assert report["GB"] >= round(sum(parts), 3) - 0.002
    assert zeroconv(*words).exit_code == 0  # for a person


@pytest.mark.parametrize("words", [("--size", "64"), ("--offload", "model"), ("--vae-tiling",)])
def test_info_without_memory_refuses_options_of_it(zeroconv, models: Path, words) -> None:
    result = zeroconv("info", models / "base", *words)
    assert result.exit_code == 2 and "--memory" in result.stderr


@pytest.mark.slow
def test_generate_offloaded_is_the_same_picture(zeroconv, models: Path, photo: Path, tmp_path):
    words = ("generate", "a cat", "--base", models / "base", "--steps", "1", "--height", "64")
    words += ("--width", "64", "--control", f"{models / 'canny'}:{photo}")
    pictures = {}
    for name, more in {
        "plain": (),
        "model": ("--offload", "model", "--vae-tiling"),
        "group": ("--offload", "group"),
        "int8": ("--quantise", "int8", "--offload", "group"),
    }.items():
        out = tmp_path / f"{name}.png"
        result = zeroconv(*words, *more, "--out", out)
        assert result.exit_code == 0, result.output
        pictures[name] = Image.open(out).convert("RGB")
    for name in ("model", "group"):
        assert ImageChops.difference(pictures["plain"], pictures[name]).getbbox() is None, name
    assert pictures["int8"].size == (64, 64)


@pytest.mark.parametrize("words", [("--offload", "all"), ("--quantise", "int4")])
def test_generate_refuses_unknown_ways_to_save_memory(zeroconv, models: Path, tmp_path, words):
    out = tmp_path / "out.png"
    result = zeroconv("generate", "a", "--base", models / "base", *words, "--out", out)
    assert result.exit_code == 2 and "choose" in result.stderr and not out.exists()
