"""`generate --from PICTURE` with image prompts and references: the picture carries what they read,
and a checksum of the adapter's file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny_ip_adapter import tiny_ip_adapter, tiny_vision
from zeroconv.backbones import load_backbone
from zeroconv.generation.metadata.record import read_info

QUICK = ("--steps", 1, "--cfg", 1, "--height", 32, "--width", 32, "--dtype", "float32")


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, its image encoder and another adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    backbone = load_backbone(models / "base")
    torch.save(tiny_ip_adapter("base", backbone), folder / "adapter.bin")
    torch.save(tiny_ip_adapter("base", backbone, seed=12), folder / "other.bin")
    tiny_vision().save_pretrained(folder / "image_encoder")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil, with pictures."""
    folder = Path(shutil.copytree(made, tmp_path / "adapters"))
    noise = np.random.default_rng(0)
    for name in ("one", "two", "region"):
        levels = noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def run(zeroconv, once) -> Callable[..., str]:
    def call(*words: object, code: int = 0) -> str:
        result = zeroconv("generate", *words)
        assert result.exit_code == code, result.output
        return result.stderr

    return call


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def first_picture(run, models: Path, folder: Path) -> Path:
    """Made with two image prompts, one of them within a region, and a reference."""
    words = [
        "--image-prompt", f"{folder / 'adapter.bin'}={folder / 'one.png'}",
        "--image-prompt", f"{folder / 'adapter.bin'}={folder / 'two.png'}",
        "--image-prompt-scale", 0.9, "--image-prompt-scale", 0.4,
        "--image-prompt-region", folder / "region.png",
        "--reference", folder / "two.png", "--reference-fidelity", 0.2,
    ]  # fmt: skip
    run("a ball", *words, *QUICK, "--base", models / "base", "--out", folder / "a.png")
    return folder / "a.png"


def test_again_needs_no_picture_of_an_adapter(run, models, folder) -> None:
    first = first_picture(run, models, folder)
    for name in ("one", "two", "region"):
        (folder / f"{name}.png").unlink()
    run("--from", first, "--out", folder / "b.webp")
    run("--from", folder / "b.webp", "--out", folder / "c.png")
    assert (pixels(first) == pixels(folder / "c.png")).all()
    before, after = (read_info(path)["adapters"] for path in (first, folder / "c.png"))
    assert before == after and len(before) == 3
    assert len(before[0]["sha256"]) == 64 and "sha256" not in before[2]


def test_again_changes_image_prompts_and_references(run, models, folder) -> None:
    first = first_picture(run, models, folder)
    run("--from", first, "--image-prompt-scale", 0.1, "--out", folder / "b.png")
    assert [one["scale"] for one in read_info(folder / "b.png")["adapters"]] == [0.1, 0.1, 1.0]
    assert (pixels(first) != pixels(folder / "b.png")).any()
    run("--from", first, "--reference", folder / "one.png", "--out", folder / "c.png")
    *prompts, reference = read_info(folder / "c.png")["adapters"]
    assert len(prompts) == 2 and reference["fidelity"] == 0.5
    assert reference["picture"] == str(folder / "one.png")
    single = f"{folder / 'other.bin'}={folder / 'one.png'}"
    run("--from", first, "--image-prompt", single, "--out", folder / "d.png")
    first_of, reference = read_info(folder / "d.png")["adapters"]
    assert (first_of["adapter"], reference["fidelity"]) == (str(folder / "other.bin"), 0.2)
    stderr = run("--from", first, *["--image-prompt-start", 0.1] * 3, code=2)
    assert "given 3 times for 2 pictures" in stderr


def test_again_says_in_one_sentence_which_adapter_is_missing(run, models, folder) -> None:
    first = first_picture(run, models, folder)
    (folder / "adapter.bin").unlink()
    stderr = run("--from", first, "--out", folder / "b.png", code=2)
    sha256 = read_info(first)["adapters"][0]["sha256"]
    assert len(stderr.strip().splitlines()) == 1
    assert f"adapter.bin that the picture was made with (SHA-256 {sha256[:12]}…)" in stderr
    assert "--image-prompt ADAPTER=PICTURE" in stderr


def test_again_notes_another_adapter_under_the_same_name(run, models, folder) -> None:
    first = first_picture(run, models, folder)
    shutil.copy(folder / "other.bin", folder / "adapter.bin")
    stderr = run("--from", first, "--out", folder / "b.png")
    assert "adapter.bin is another file than the IP-Adapter" in stderr
    assert (pixels(first) != pixels(folder / "b.png")).any()


def test_a_picture_too_large_to_be_kept_is_read_from_its_file(
    run, models, folder, monkeypatch
) -> None:
    monkeypatch.setattr("zeroconv.generation.metadata.record.MOST_TEXT", 10)
    first = first_picture(run, models, folder)
    run("--from", first, "--out", folder / "b.png")
    assert (pixels(first) == pixels(folder / "b.png")).all()
    (folder / "two.png").unlink()
    assert "two.png" in run("--from", first, "--out", folder / "b.png", code=2)
