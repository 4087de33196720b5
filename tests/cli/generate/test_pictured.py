"""`generate --image …`: options of a picture to start from, and LoRAs that prompts name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.tiny import randomise_
from zeroconv.cli.generate.pictured import parse_expand
from zeroconv.errors import UserError
from zeroconv.generation.metadata.record import read_info


@pytest.fixture
def generate(zeroconv, models: Path):
    def run(*words: object, code: int = 0):
        result = zeroconv("generate", *words, "--base", models / "base", "--steps", 2, "--cfg", 2)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """Of the photo, 96 × 64."""
    picture = Image.new("L", (96, 64))
    picture.paste(255, (16, 8, 64, 56))
    picture.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_image_is_repainted_under_the_mask_and_made_again(
    generate, models, photo: Path, mask: Path, tmp_path: Path
) -> None:
    words = ("--image", photo, "--mask", mask, "--control", models / "canny", "--seed", 3)
    generate("a ball", *words, "--out", tmp_path / "a.png")
    made, picture = pixels(tmp_path / "a.png"), pixels(photo)
    inside = np.asarray(Image.open(mask)) > 0
    assert made.shape == picture.shape and (made[~inside] == picture[~inside]).all()
    assert (made[inside] != picture[inside]).any()

    about = read_info(tmp_path / "a.png")
    assert about["inputs"].keys() == {"image", "mask"} and len(about["hints"]) == 1
    photo.unlink()
    mask.unlink()
    generate("--from", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert (pixels(tmp_path / "b.png") == made).all()


def test_an_inpaint_control_by_its_name_takes_the_mask_as_its_hole(
    generate, models, photo: Path, mask: Path, tmp_path: Path
) -> None:
    from zeroconv.backbones import load_backbone
    from zeroconv.control import ControlNet

    net = ControlNet.from_backbone(load_backbone(models / "base"), condition="inpaint")
    randomise_(net).save(tmp_path / "inpaint")
    words = ("--image", photo, "--control", tmp_path / "inpaint")
    generate("a", *words, "--mask", mask, "--out", tmp_path / "a.png")
    (hint,) = read_info(tmp_path / "a.png")["hints"]
    hole = np.asarray(hint)[..., 3] == 0
    assert (hole == (np.asarray(Image.open(mask)) > 0)).all()
    assert "give one" in generate("a", *words, "--out", tmp_path / "b.png", code=2).stderr


def test_expand_and_hires_change_the_size_and_are_kept(generate, photo, tmp_path) -> None:
    generate("a", "--image", photo, "--expand", "left=32,top=8", "--out", tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (128, 72)
    generate("a", "--hires", 1.5, "--hires-strength", 0.5, "--out", tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").size == (96, 96)
    about = read_info(tmp_path / "b.png")
    assert (about["width"], about["hires"]) == (64, 1.5)
    generate("--from", tmp_path / "b.png", "--out", tmp_path / "c.png")
    assert (pixels(tmp_path / "b.png") == pixels(tmp_path / "c.png")).all()


def test_mask_without_image_is_the_region_of_controls_with_a_note(
    generate, models, photo, mask, tmp_path
) -> None:
    control = ("--control", f"{models / 'canny'}:{photo}")
    result = generate("a", *control, "--mask", mask, "--out", tmp_path / "a.png")
    assert "old name of --region" in result.stderr
    generate("a", *control, "--region", mask, "--out", tmp_path / "b.png")
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()


def test_a_folder_of_images_with_a_control_drawn_from_each(
    generate, models, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.open(photo).rotate(180).save(tmp_path / "in" / "b.png")
    photo.rename(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    words = ("--image", tmp_path / "in", "--control", models / "canny", "--strength", 0.5)
    generate("a", *words, "--out", tmp_path / "out", code=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    first, second = (read_info(tmp_path / "out" / name)["hints"][0] for name in ("a.png", "b.png"))
    assert (np.asarray(first.rotate(180)) == np.asarray(second)).mean() > 0.9
    assert (np.asarray(first) != np.asarray(second)).any()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--mask", "{mask}"), "no --image is given"),
        (("--strength", 0.5), "give image"),
        (("--expand", "left=8"), "give image"),
        (("--image", "{photo}", "--expand", "left"), "not understood"),
        (("--image", "{photo}", "--expand", "up=3"), "no side"),
        (("--image", "{photo}", "--mask", "{mask}", "--mask", "{mask}"), "once"),
        (("--image", "{photo}", "--mask", "{mask}", "--hires", 2), "hires"),
        (("--image", "{photo}", "--masked-content", "loud"), "original, fill, noise"),
        (("--image", "no such.png"), "no such.png"),
        (("--passes", "low"), "--control"),
    ],
)
def test_options_of_a_picture_that_do_not_go_together(
    generate, photo, mask, tmp_path, words, sentence
) -> None:
    names = {"{mask}": mask, "{photo}": photo}
    given = [names.get(word, word) if isinstance(word, str) else word for word in words]
    result = generate("a", *given, "--out", tmp_path / "x.png", code=2)
    assert sentence in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


def test_lora_tags_of_prompts_are_merged_from_their_folder(generate, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loras").mkdir()
    at = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    generator = torch.Generator().manual_seed(0)
    state = {
        f"{at}.lora_A.weight": torch.randn(2, 48, generator=generator),
        f"{at}.lora_B.weight": torch.randn(48, 2, generator=generator),
    }
    save_file(state, tmp_path / "loras" / "style.safetensors")
    steps = ("--schedule", "trailing")
    generate("a ball", *steps, "--out", "plain.png")
    lora = ("--lora", "loras/style.safetensors=unet:0.5,text:0.5")
    generate("a ball", *lora, *steps, "--out", "named.png")
    result = generate("a ball<lora:style:0.5>", *steps, "--out", "tagged.png")
    assert not result.stderr.replace("tagged.png", "").strip()
    named, tagged = pixels(tmp_path / "named.png"), pixels(tmp_path / "tagged.png")
    assert (named == tagged).all() and (tagged != pixels(tmp_path / "plain.png")).any()
    assert "styl" in generate("a <lora:styl:1>", "--out", "x.png", code=2).stderr
    many = generate("a <lora:style:1>", "a", "--out", "x.png", code=2)
    assert "different LoRAs" in many.stderr


def test_expand_names_each_side_once(generate, photo, tmp_path) -> None:
    with pytest.raises(UserError, match="names left twice"):
        parse_expand("left=8,left=16")
    result = generate("a ball", "--image", photo, "--expand", "0", "--out", tmp_path / "a.png")
    assert "expand adds no pixel" in result.stderr
