"""`generate --from PICTURE` gives the same bits for random requests of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.tiny import randomise_
from tests.helpers.tiny_ip_adapter import tiny_ip_adapter, tiny_vision
from zeroconv.backbones import load_backbone
from zeroconv.control import ControlNetUnion

SAMPLERS = (
    "unipc euler euler_a ddim dpm++2m dpm++2m_sde dpm++3m_sde dpm++sde heun lms deis pndm dpm2 "
    "dpm2_a lcm tcd"
).split()
REQUESTS = 50
SMALL = ("--height", 32, "--width", 32)  # pixels: four latents a side


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def lora_of(folder: Path) -> Path:
    """A LoRA of one layer of the tiny base, in diffusers' layout."""
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    numbers = torch.Generator().manual_seed(0)
    parts = {
        f"{name}.lora_A.weight": torch.randn(2, 48, generator=numbers),
        f"{name}.lora_B.weight": torch.randn(48, 2, generator=numbers),
    }
    save_file(parts, folder / "style.safetensors")
    return folder / "style.safetensors"


@pytest.fixture(scope="module")
def files(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures, a LoRA, a Union control and an IP-Adapter with its image encoder."""
    folder = tmp_path_factory.mktemp("files")
    noise = np.random.default_rng(0)
    photo = Image.new("RGB", (48, 32), "white")
    photo.paste((200, 30, 30), (10, 5, 30, 25))
    photo.save(folder / "photo.png")
    Image.fromarray(noise.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(folder / "hint.png")
    deep = noise.integers(0, 65536, (32, 32), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(noise.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / "mask.png")
    named = {name: folder / f"{name}.png" for name in ("photo", "hint", "deep", "mask")}

    backbone = load_backbone(models / "base")
    randomise_(ControlNetUnion.from_backbone(backbone)).save(folder / "union")
    torch.save(tiny_ip_adapter("base", backbone), folder / "adapter.bin")
    tiny_vision().save_pretrained(folder / "image_encoder")
    named |= {"union": folder / "union", "adapter": folder / "adapter.bin"}
    return {**named, "lora": lora_of(folder)}


def random_request(i: int, models: Path, files: dict[str, Path]) -> list[object]:
    """Words of a request: every kind of option comes up among fifty of them."""
    dice = random.Random(i)
    sampler = SAMPLERS[i % len(SAMPLERS)]
    words: list[object] = ["a red ball, (large) größer", "--seed", dice.randrange(2**40)]
    words += ["--scheduler", sampler, "--steps", 2, "--cfg", dice.choice([1, 3.3, 7.5])]
    words += ["--negative", dice.choice(["", "blur"]), "--dtype", "float32"]
    if sampler not in ("lcm", "tcd", "ddim", "pndm") and dice.random() < 0.4:
        words += ["--schedule", dice.choice(["karras", "exponential", "trailing"])]
    if sampler in ("ddim", "euler_a"):
        words += ["--eta", dice.choice([0, 0.5])]
    noises = ["cpu", "batch"] if sampler in ("lcm", "tcd", "dpm2_a") else ["cpu", "batch", "gpu"]
    words += ["--noise", dice.choice(noises), "--guidance-rescale", dice.choice([0, 0.7])]
    words += ["--guidance", dice.choice(["both", "cond", "resolution"])]
    words += controls_of(dice, models, files)
    started = sampler not in ("lcm", "tcd") and dice.random() < 0.5
    if started:
        words += ["--image", files["photo"], "--strength", dice.choice([0.5, 0.7, 1])]
        if dice.random() < 0.8:
            words += ["--mask", files["mask"], "--mask-blur", dice.choice([0, 3])]
            words += dice.choice([[], ["--only-masked"], ["--expand", "left=8"]])
    elif dice.random() < 0.3:
        words += ["--hires", 2, "--hires-strength", 0.7]
    if i % 7 == 0:
        words += ["--lora", f"{files['lora']}:0.7"]
    if i % 5 == 1:
        words += ["--image-prompt", f"{files['adapter']}={files['photo']}"]
        words += ["--image-prompt-scale", 0.6]
        words += dice.choice([[], ["--image-prompt-region", files["mask"]]])
    if i % 5 == 2:
        words += ["--reference", files["hint"], "--reference-fidelity", dice.choice([0, 0.5])]
    if not started or "--only-masked" in words or dice.random() < 0.4:
        words += SMALL  # else the size of the picture to start from
    return [*words, "--count", dice.choice([1, 1, 2])]


def controls_of(dice: random.Random, models: Path, files: dict[str, Path]) -> list[object]:
    """Words of none to two controls."""
    words: list[object] = []
    for name in dice.choice([[], ["canny"], ["depth"], ["canny", "depth"], ["union:canny"]]):
        # depth is not drawn here without a network
        picture = dice.choice(["=hint", "=deep", ":photo" if name == "canny" else "=photo"])
        control = f"{files['union']}:canny" if name == "union:canny" else models / name
        words += ["--control", f"{control}{picture[0]}{files[picture[1:]]}"]
        words += ["--scale", round(dice.uniform(-1, 2), 3), "--start", dice.choice([0, 0.2])]
        words += ["--end", dice.choice([0.7, 1]), "--region", files["mask"]]
        words += ["--resize-mode", dice.choice(["stretch", "crop", "fill"])]
        words += ["--mode", dice.choice(["balanced", "prompt", "control"])]
    return words


def test_random_requests_have_every_kind(models: Path, files: dict[str, Path]) -> None:
    """Else fifty of them would show less than they claim."""
    texts = [" ".join(map(str, random_request(i, models, files))) for i in range(REQUESTS)]
    kinds = (
        "--control", "--region", "--lora", "--image ", "--mask ", "--only-masked", "--expand",
        "--hires ", "union:canny", "--image-prompt ", "--image-prompt-region", "--reference ",
        "--noise batch", "--noise gpu", "--count 2", "--schedule",
    )  # fmt: skip
    for kind in kinds:
        assert sum(kind in text for text in texts) >= 2, kind


@pytest.fixture
def same_again(zeroconv, models, files, tmp_path) -> Callable[[range], None]:
    """Makes requests of these numbers, and each again from its picture alone."""

    def run(*words: object) -> None:
        result = zeroconv("generate", *words)
        assert result.exit_code == 0, (result.output, words)

    def check(numbers: range) -> None:
        for i in numbers:
            words = random_request(i, models, files)
            count = words[-1]
            assert isinstance(count, int)
            run(*words, "--base", models / "base", "--out", tmp_path / f"{i}.png")
            last = tmp_path / (f"{i}.png" if count == 1 else f"{i}-{count - 1}.png")
            again = tmp_path / f"{i}-again.{('png', 'webp')[i % 2]}"
            run("--from", last, "--out", again)
            assert (pixels(last) == pixels(again)).all(), words

    return check


def test_again_gives_the_same_bits(once, same_again) -> None:
    same_again(range(0, REQUESTS, 21))


@pytest.mark.slow
def test_again_gives_the_same_bits_for_fifty_requests(once, same_again) -> None:
    same_again(range(REQUESTS))
