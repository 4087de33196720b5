"""Texts on a picture's making, of three programs, in PNG, JPEG and WebP; damage is one sentence."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import is_ours
from zeroconv.generation.metadata.record import read_foreign, read_info, save_picture
from zeroconv.pictures.carried import MARK, carried

ABOUT = {"prompt": "a ball, größer 🙂", "steps": 3, "scheduler": "euler", "controls": []}


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp"])
def test_carried_words_and_hints_of_ours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    dice = np.random.default_rng(0)
    hint = Image.fromarray(dice.integers(0, 256, (300, 300, 3), dtype=np.uint8))  # 360 KB
    picture = Image.fromarray(dice.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    save_picture(picture, path, ABOUT, [hint], {"mask 0": hint.convert("L")})
    about = read_info(path)
    assert (np.asarray(about.pop("hints")[0]) == np.asarray(hint)).all()
    assert (np.asarray(about.pop("inputs")["mask 0"]) == np.asarray(hint.convert("L"))).all()
    assert about == ABOUT and is_ours(path)
    assert carried(path)["parameters"].startswith("a ball, größer 🙂\nNegative prompt: ")
    with Image.open(path) as opened:
        same = np.asarray(opened) == np.asarray(picture)
    assert same.all() or suffix.startswith("j")


def test_carried_text_too_long_for_a_jpeg_is_noted(tmp_path: Path) -> None:
    about = {**ABOUT, "prompt": "x" * 90_000}
    with pytest.warns(UserWarning, match="too long for a JPEG"):
        save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.jpg", about)
    assert read_info(tmp_path / "a.jpg")["prompt"] == about["prompt"] and is_ours(
        tmp_path / "a.jpg"
    )


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_carried_text_of_a1111(tmp_path: Path, order: str, format: str) -> None:
    exif = Image.Exif()
    text = "a ball\nSteps: 2, Sampler: Euler a, Seed: 5"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(order)
    Image.new("RGB", (8, 8)).save(tmp_path / "a", format, exif=exif)
    assert carried(tmp_path / "a") == {"parameters": text}
    assert read_foreign(tmp_path / "a").values["scheduler"] == "euler_a"
    assert not is_ours(tmp_path / "a")


def test_carried_graph_of_comfyui(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps({"1": {"class_type": "KSampler", "inputs": {}}})
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif)
    assert read_foreign(tmp_path / "a.webp").program == "ComfyUI"


def test_carried_text_without_end_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(b"x" * (65 << 20))
    part = MARK + bomb[:60_000]
    extra = b"\xff\xea" + (len(part) + 2).to_bytes(2, "big") + part
    Image.new("RGB", (8, 8)).save(tmp_path / "cut.jpg", extra=extra)
    with pytest.raises(UserError, match=r"cut\.jpg carries"):
        carried(tmp_path / "cut.jpg")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = MARK + bomb
    Image.new("RGB", (8, 8)).save(tmp_path / "bomb.webp", exif=exif)
    with pytest.raises(UserError, match="more than"):
        carried(tmp_path / "bomb.webp")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["png", "jpg", "webp"]), st.data())
def test_carried_words_that_are_damaged_raise_one_sentence(tmp_path: Path, suffix, data) -> None:
    path = tmp_path / f"whole.{suffix}"
    if not path.exists():
        save_picture(Image.new("RGB", (8, 8)), path, ABOUT, [Image.new("L", (8, 8))])
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes(bytes(content[:cut]))
    for read in (read_info, read_foreign):
        with suppress(UserError):  # and nothing else
            read(damaged)
