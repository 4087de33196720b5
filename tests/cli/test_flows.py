"""Diffusion transformers on the command line: pictures, info, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import tiny_flow
from zeroconv.generation.metadata.record import read_info


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a control in `control` of its folder."""
    folder = tiny_flow.write_flux(tmp_path_factory.mktemp("flux") / "flux")
    tiny_flow.flux_control(2, 2).save_pretrained(folder / "control")
    shade = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(shade).save(folder / "hint.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_generate_with_a_flow_and_its_control(zeroconv, flux: Path, tmp_path: Path) -> None:
    common = ("a red ball", "--base", flux, "--steps", 2, "--height", 32, "--width", 32)
    control = ("--control", f"{flux / 'control'}={flux / 'hint.png'}")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 24))
    mask.save(tmp_path / "hole.png")
    image = ("--image", flux / "hint.png", "--strength", 0.5)
    asked = {
        "plain": (),
        "controlled": control,
        "image": image,
        "mask": (*image, "--mask", tmp_path / "hole.png", *control),
    }
    for name, words in asked.items():
        result = zeroconv("generate", *common, *words, "--out", tmp_path / f"{name}.png")
        assert result.exit_code == 0, result.output
    assert read_info(tmp_path / "plain.png")["scheduler"] == "euler"
    apart = np.abs(pixels(tmp_path / "plain.png") - pixels(tmp_path / "controlled.png"))
    assert apart.max() > 5
    kept = np.abs(pixels(tmp_path / "mask.png") - pixels(flux / "hint.png")).max(-1)
    assert kept[:8].max() <= 1 and kept[8:24, 8:24].max() > 5


def test_info_of_a_flow_and_its_control(zeroconv, flux: Path) -> None:
    report = json.loads(zeroconv("info", flux, "--json").stdout)
    assert set(report["parameters"]) == {"transformer", "vae", "text"}
    assert report["prediction"] == "flow" and len(report["connections"]) == 8
    report = json.loads(zeroconv("info", flux / "control", "--json").stdout)
    assert (report["kind"], report["blocks"], report["single_blocks"]) == ("flux_control", 2, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scheduler", "ddim"), "the scheduler euler alone, not ddim"),
        (("--schedule", "karras"), "euler with the schedule karras"),
        (("--true-cfg", 2.0), "true_cfg is for bases that read the guidance scale"),
        (("--clip-skip", 1), "without clip skip"),
        (("--lora", "x.safetensors"), "LoRA"),
        (("--image", "hint.png", "--reference", "hint.png"), ""),
    ],
)
def test_generate_refuses_what_a_flow_has_not(
    zeroconv, flux: Path, monkeypatch: pytest.MonkeyPatch, words: tuple, message: str
) -> None:
    monkeypatch.chdir(flux)
    common = ("a ball", "--base", flux, "--steps", 1, "--height", 32, "--width", 32)
    result = zeroconv("generate", *common, *words, "--out", "out.png")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split()) and "Traceback" not in result.output
