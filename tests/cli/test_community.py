"""LoRAs and transfer from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.tiny import tiny_unet
from zeroconv.checkpoints.lora import BASE, FILE
from zeroconv.generation.metadata.record import read_info


@pytest.fixture(scope="module")
def style(models: Path) -> Path:
    """A LoRA of the middle block that names models/base as its base."""
    module = "mid_block.resnets.0.conv1"
    weight = tiny_unet().get_submodule(module).weight
    generator = torch.Generator().manual_seed(2)
    state = {
        f"unet.{module}.lora_A.weight": torch.randn(4, *weight.shape[1:], generator=generator),
        f"unet.{module}.lora_B.weight": torch.randn(len(weight), 4, 1, 1, generator=generator),
    }
    folder = models / "style"
    folder.mkdir()
    save_file(state, folder / FILE)
    (folder / BASE).write_text(json.dumps({"base": "base"}))
    (folder / "README.md").write_text("# A style\n\nLicence: MIT.\n")
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_lora_changes_the_picture_by_its_weight(
    zeroconv, models: Path, style: Path, tmp_path: Path
) -> None:
    made = {}
    for name, words in {
        "plain": ("--base", models / "base"),
        "none": ("--base", models / "base", "--lora", f"{style}:0"),
        "full": ("--base", models / "base", "--lora", style),
        "twice": (
            "--base",
            models / "base",
            "--lora",
            f"{style}:0.5",
            "--lora",
            f"{style / FILE}:0.5",
        ),
        "folder": ("--base", style),
    }.items():
        out = tmp_path / f"{name}.png"
        result = zeroconv("generate", "a ball", "--steps", 2, "--out", out, *words)
        assert result.exit_code == 0, result.output
        made[name] = pixels(out).astype(int)
    assert (made["plain"] == made["none"]).all() and (made["plain"] != made["full"]).any()
    assert (made["full"] == made["folder"]).all() and np.abs(
        made["full"] - made["twice"]
    ).max() <= 1
    assert read_info(tmp_path / "twice.png")["lora"] == [f"{style}:0.5", f"{style / FILE}:0.5"]


def test_a_wrong_lora_is_the_users_mistake(zeroconv, models: Path, tmp_path: Path) -> None:
    result = zeroconv(
        "generate", "a ball", "--base", models / "base", "--lora", tmp_path / "none.safetensors"
    )
    assert result.exit_code == 2 and "no LoRA" in result.stderr


def test_info_of_a_folder_that_names_its_base(zeroconv, style: Path) -> None:
    report = json.loads(zeroconv("info", style, "--json").stdout)
    assert report["kind"] == "base" and report["licence"] == "MIT."


@pytest.mark.slow
def test_transfer_writes_a_control_that_serves_the_new_base(
    zeroconv, models: Path, style: Path, tmp_path: Path
):
    words = (
        "transfer",
        models / "canny",
        "--from",
        models / "base",
        "--to",
        style,
        "--out",
        tmp_path / "moved",
    )
    result = zeroconv(*words)
    assert result.exit_code == 0 and result.stdout.strip() == str(tmp_path / "moved")
    hint = tmp_path / "hint.png"
    Image.new("RGB", (64, 64)).save(hint)
    control = ("--control", f"{tmp_path / 'moved'}={hint}")
    made = zeroconv(
        "generate", "a ball", "--base", style, *control, "--steps", 2, "--out", tmp_path / "a.png"
    )
    assert made.exit_code == 0, made.output
    report = json.loads(zeroconv("info", tmp_path / "moved", "--json").stdout)
    assert report["base"] == str(style) and report["condition"] == "canny"
    refused = zeroconv(*words, "--method", "half")
    assert refused.exit_code == 2 and "difference" in refused.stderr
