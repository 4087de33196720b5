"""The command line reads pictures, hints and masks as the library does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures.test_roles import BLACK, LINE, SIZE, WHITE, layer
from tests.pictures.writing import bomb
from zeroconv.conditions import open_hint
from zeroconv.generation.hints import mask_tensor
from zeroconv.generation.metadata.record import read_info, save_picture


@pytest.fixture
def sampled(zeroconv, models: Path, tmp_path: Path, monkeypatch):
    """Generate with a finished hint; the control that is sampled with, its stored hint, and
    stderr.
    """
    seen = []

    def sample(backbone, prompts, controls, **options):
        seen.extend(controls)
        picture = Image.new("RGB", (SIZE, SIZE))
        options["finished"](0, picture)
        return [picture]

    monkeypatch.setattr("zeroconv.generation.generate", sample)

    def run(condition: str, hint: Path, *words: object):
        control = tmp_path / condition
        if not control.exists():
            shutil.copytree(models / "canny", control)
            config = json.loads((control / "config.json").read_text())
            config["zeroconv"]["condition"] = condition
            (control / "config.json").write_text(json.dumps(config))
        out = tmp_path / "out.png"
        result = zeroconv(
            "generate",
            "a ball",
            "--base",
            models / "base",
            "--steps",
            1,
            "--control",
            f"{control}={hint}",
            "--out",
            out,
            *words,
        )
        assert result.exit_code == 0, result.output
        return seen[-1], read_info(out)["hints"][0], result.stderr

    return run


def test_hints_on_the_command_line_have_their_alpha(sampled, tmp_path: Path) -> None:
    for colour in (WHITE, BLACK):
        Image.fromarray(layer(LINE, colour)).save(tmp_path / "line.png")
        _, hint, notes = sampled("canny", tmp_path / "line.png")
        assert np.array_equal(np.asarray(hint.convert("L")) > 127, LINE)
        assert ("dark lines on transparent ground" in notes) == (colour == BLACK)
    holed = np.dstack(
        [np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)), 255 * ~LINE]
    ).astype(np.uint8)
    Image.fromarray(holed).save(tmp_path / "holed.png")
    _, hint, _ = sampled("inpaint", tmp_path / "holed.png")
    assert hint.mode == "RGBA" and np.array_equal(np.asarray(hint)[..., 3] == 0, LINE)
    _, hint, _ = sampled("tile", tmp_path / "holed.png")
    assert hint.mode == "RGB" and (np.asarray(hint)[LINE] == 255).all()


def test_a_depth_map_on_the_command_line_keeps_16_bits(sampled, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    _, hint, _ = sampled("depth", tmp_path / "deep.png")
    assert np.array_equal(np.asarray(hint), ramp)


def test_a_painted_mask_on_the_command_line(sampled, tmp_path: Path) -> None:
    Image.new("L", (SIZE, SIZE)).save(tmp_path / "hint.png")
    for mask in (
        Image.fromarray(layer(LINE, BLACK)),
        Image.fromarray(layer(LINE, WHITE)),
        Image.fromarray(LINE),
    ):
        mask.save(tmp_path / "mask.png")
        control, _, _ = sampled("canny", tmp_path / "hint.png", "--region", tmp_path / "mask.png")
        assert np.array_equal(mask_tensor(control.region, (SIZE, SIZE))[0, 0].numpy(), LINE)


def test_a_bomb_is_too_large_and_not_damaged(zeroconv, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bomb(20_000, 20_000))
    result = zeroconv("annotate", "canny", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert (
        result.exit_code == 2
        and "too large" in result.stderr
        and "ZEROCONV_MAX_PIXELS" in result.stderr
    )
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "b.png").exists()


def test_notes_of_a_folder_are_printed_once(zeroconv, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(5):
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / "in" / f"{i}.webp", save_all=True, append_images=frames[1:])
    result = zeroconv(
        "annotate", "blur", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1
    )
    assert result.exit_code == 0, result.output
    assert result.stderr.count("animation") <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "L", "CMYK", "F"])
def test_hints_of_any_mode_are_stored_and_read_again(mode: str, tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 64).reshape(8, 8)
    image = {
        "I;16": Image.fromarray((grey * 65535).astype(np.uint16)),
        "F": Image.fromarray(grey.astype(np.float32)),
    }.get(mode) or Image.fromarray((grey * 255).astype(np.uint8)).convert(mode)
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", {"prompt": "x"}, [image])
    (stored,) = read_info(tmp_path / "a.png")["hints"]
    assert np.array_equal(
        np.asarray(open_hint(stored, "tile")), np.asarray(open_hint(image, "tile"))
    )
