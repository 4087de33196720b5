"""The user's mistakes: one clear sentence on stderr and exit code 2, no traceback, no file left
behind.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import tiny_backbone, tiny_unet
from zeroconv.control import ControlNet


@pytest.fixture
def refused(zeroconv, tmp_path: Path):
    """Run a command that must be refused, and give back the sentence."""

    def run(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = zeroconv(*words)
        assert result.exit_code == 2, result.output
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("zeroconv: ")
        assert lines[0].endswith((".", "--help"))
        assert "Traceback" not in result.output
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return run


@pytest.fixture
def generate(refused, models: Path, tmp_path: Path):
    """`zeroconv generate` on the tiny base, in two steps, that must be refused."""

    def run(*words: object) -> str:
        few = ("--base", models / "base", "--steps", 2, "--out", tmp_path / "out.png")
        return refused("generate", "a ball", *few, *words)

    return run


def test_a_missing_picture(generate, models: Path) -> None:
    assert "there is no picture at nowhere.png" in generate(
        "--control", f"{models / 'canny'}=nowhere.png"
    )


@pytest.mark.parametrize("broken", [b"no picture at all", b""])
def test_a_broken_picture(generate, models: Path, tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "hint.png").write_bytes(broken)
    assert "cannot be read as a picture" in generate(
        "--control", f"{models / 'canny'}={tmp_path / 'hint.png'}"
    )


def test_a_picture_cut_short(generate, models: Path, photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-60])
    assert "cut short" in generate("--control", f"{models / 'canny'}:{photo}")


def test_a_control_of_another_base(generate, photo: Path, tmp_path: Path) -> None:
    wide = tiny_backbone(unet=tiny_unet(block_out_channels=(16, 32, 48, 48)))
    ControlNet.from_backbone(wide).save(tmp_path / "wide")
    assert "made for another base" in generate("--control", f"{tmp_path / 'wide'}={photo}")


def test_a_tensor_of_the_wrong_shape(generate, models: Path, photo: Path, tmp_path: Path) -> None:
    name = "diffusion_pytorch_model.safetensors"
    state = load_file(models / "canny" / name)
    state["conv_in.weight"] = torch.zeros(3, 4, 3, 3)
    (tmp_path / "bent").mkdir()
    save_file(state, tmp_path / "bent" / name)
    (tmp_path / "bent" / "config.json").write_bytes((models / "canny" / "config.json").read_bytes())
    sentence = generate("--control", f"{tmp_path / 'bent'}={photo}")
    assert "conv_in.weight has shape [3, 4, 3, 3], expected [16, 4, 3, 3]" in sentence


def test_a_cut_off_weights_file(generate, models: Path, photo: Path, tmp_path: Path) -> None:
    content = (models / "canny" / "diffusion_pytorch_model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    assert "damaged" in generate("--control", f"{tmp_path / 'cut.safetensors'}={photo}")


class Bomb:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "boom")


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("role", ["base", "control", "info", "convert"])
def test_a_pickle_with_code_in_it_is_never_run(
    refused, models, photo, tmp_path: Path, suffix: str, role: str
) -> None:
    bomb = tmp_path / f"bomb{suffix}"
    bomb.write_bytes(pickle.dumps({"state_dict": Bomb(tmp_path / "boom.txt")}))
    torch.save({"state_dict": Bomb(tmp_path / "boom.txt")}, tmp_path / f"zip{suffix}")
    for path in (bomb, tmp_path / f"zip{suffix}"):
        words = {
            "base": ("generate", "a ball", "--base", path),
            "control": (
                "generate",
                "a ball",
                "--base",
                models / "base",
                "--control",
                f"{path}={photo}",
            ),
            "info": ("info", path),
            "convert": ("convert", path, tmp_path / "converted"),
        }[role]
        sentence = refused(*words)
        assert str(path) in sentence
        assert "refused" in sentence
    assert not (tmp_path / "boom.txt").exists()


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_a_folder_that_is_no_model(refused, tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if content:
        (folder / content).write_text("hello")
    assert "is no model" in refused("generate", "a ball", "--base", folder)
    assert "is no model" in refused("info", folder)


def test_a_control_given_as_base_and_the_reverse(
    refused, generate, models: Path, photo: Path
) -> None:
    assert "not a whole model" in refused("generate", "a ball", "--base", models / "canny")
    assert str(models / "base") in generate("--control", f"{models / 'base'}={photo}")


def test_a_model_that_is_not_there(refused) -> None:
    assert "there is no" in refused("info", "./nowhere")
    assert "playroom-nonsense" in refused("info", "playroom-nonsense")


def test_an_unknown_scheduler_names_those_there_are(generate) -> None:
    sentence = generate("--scheduler", "magic")
    assert "magic" in sentence
    assert "unipc" in sentence
    assert "ddim" in sentence


def test_an_unknown_guidance_names_those_there_are(generate) -> None:
    sentence = generate("--guidance", "magic")
    assert all(name in sentence for name in ("magic", "both", "cond", "resolution", "guess"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--steps", -3),
        ("--steps", 0),
        ("--steps", 100_000),
        ("--count", 0),
        ("--width", 13),
        ("--height", -64),
        ("--cfg", "nan"),
        ("--device", "toaster"),
    ],
)
def test_numbers_that_make_no_sense(generate, option: str, value: object) -> None:
    assert str(value) in generate(option, value)


@pytest.mark.parametrize(
    ("option", "value"), [("--start", 0.9), ("--end", -0.1), ("--scale", "nan")]
)
def test_windows_and_weights_that_make_no_sense(
    generate, models: Path, photo: Path, option: str, value: object
) -> None:
    words = ("--end", 0.5) if option == "--start" else ()
    assert str(value) in generate("--control", f"{models / 'canny'}={photo}", option, value, *words)


def test_pictures_are_saved_as_png_jpeg_or_webp_only(generate, tmp_path: Path) -> None:
    assert ".png" in generate("--out", tmp_path / "ball.gif")


def test_an_option_that_does_not_exist(refused) -> None:
    assert "No such option: --stepps" in refused("generate", "a ball", "--stepps", 3)
    assert "zeroconv generate --help" in refused("generate", "a ball", "--steps", "many")


def test_bad_input_of_annotate(refused, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "edges.png"
    assert "canny" in refused("annotate", "magic", photo, "--out", out)
    assert "no picture at" in refused("annotate", "canny", tmp_path / "nowhere.png", "--out", out)
    assert "sparkle" in refused("annotate", "canny", photo, "--out", out, "--set", "sparkle=3")
    assert "JPEG" in refused("annotate", "canny", photo, "--out", tmp_path / "edges.jpg")
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refused(
        "annotate", "canny", tmp_path / "empty", "--out", tmp_path / "hints"
    )


def test_bad_input_of_playroom(refused, tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    assert "unknown split 'exam'" in refused("playroom", "render", out, "--split", "exam")
    assert "no map 'smell'" in refused("playroom", "render", out, "--maps", "smell")
    assert "100" in refused("playroom", "render", out, "--size", 100)
    assert "coffee" in refused(
        "playroom", "train-base", out, "--stickers", tmp_path, "--stage", "coffee"
    )


def test_hint_of_another_size_is_resized_with_a_note(
    zeroconv, models: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (50, 40), "white").save(tmp_path / "small.png")
    out = tmp_path / "ball.png"
    control = f"{models / 'canny'}={tmp_path / 'small.png'}"
    result = zeroconv(
        "generate",
        "a ball",
        "--base",
        models / "base",
        "--steps",
        2,
        "--schedule",
        "trailing",
        "--control",
        control,
        "--out",
        out,
    )
    assert result.exit_code == 0, result.output
    assert out.is_file()
    assert result.stderr.startswith("note: ")
    assert "50" in result.stderr
    assert "64" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
