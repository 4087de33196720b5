"""--vae, --revision, --variant, --subfolder, --lora: alike in every command that loads a base."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.cli.commands import names_in
from tests.helpers.tiny import tiny_backbone, tiny_vae
from tests.helpers.tiny_folder import save_backbone
from zeroconv.backbones import load_backbone
from zeroconv.cli import app
from zeroconv.cli.bases import base_files
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.training.recipes.base import BaseFiles
from zeroconv.training.recipes.recipe import parse_recipe

FILES = {"vae", "revision", "variant", "subfolder", "lora", "parts"}


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base below sub/, whose weights have the variant fp16 too; another VAE; a control."""
    folder = tmp_path_factory.mktemp("models")
    backbone = save_backbone(folder / "all" / "sub", tiny_backbone())
    unet = folder / "all" / "sub" / "unet" / "diffusion_pytorch_model"
    shutil.copyfile(f"{unet}.safetensors", f"{unet}.fp16.safetensors")
    tiny_vae(seed=9).save_pretrained(folder / "vae")
    ControlNet.from_backbone(backbone, condition="canny").save(folder / "canny")
    Image.new("RGB", (64, 64), "red").save(folder / "photo.png")
    return folder


def given(models: Path) -> list[object]:
    where = ["--subfolder", "sub", "--variant", "fp16", "--vae", models / "vae"]
    return ["--base", models / "all", *where]


def test_base_files_are_options_of_every_command_with_a_base() -> None:
    """A new command with --base cannot forget them."""
    commands = {name: command for command in app.registered_commands for name in [command]}
    based = [
        command.callback
        for command in commands
        if command.callback is not None and "base" in inspect.signature(command.callback).parameters
    ]
    assert {function.__name__ for function in based} >= {"generate", "upscale", "evaluate", "demo"}
    assert "info" in names_in(app)
    for function in based:
        assert set(inspect.signature(function).parameters) >= FILES, function.__name__
    assert set(BaseFiles.model_fields) == FILES
    assert set(base_files("a", "b", "c", "d", ["e"], ["f"])) == FILES and base_files() == {}
    assert set(inspect.signature(load_backbone).parameters) >= FILES


def test_base_files_of_upscale(models: Path, tmp_path: Path) -> None:
    quick = ["--factor", 1, "--steps", 1, "--strength", 1, "--out", tmp_path / "large.png"]
    report = json.loads(run("upscale", models / "photo.png", *given(models), *quick, "--json"))
    assert report["subfolder"] == "sub" and report["variant"] == "fp16"
    plain = ["--base", models / "all" / "sub", *quick[:-1], tmp_path / "plain.png"]
    run("upscale", models / "photo.png", *plain)
    other = Image.open(tmp_path / "plain.png").tobytes()
    assert Image.open(tmp_path / "large.png").tobytes() != other  # by another VAE


@pytest.mark.slow
def test_base_files_of_evaluate(models: Path, tmp_path: Path) -> None:
    quick = ["--limit", 2, "--steps", 1, "--json", tmp_path / "report.json"]
    run("evaluate", models / "canny", *given(models), *quick)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["base_files"]["subfolder"] == "sub"


def test_base_files_of_info(models: Path) -> None:
    report = json.loads(run("info", models / "all", "--subfolder", "sub", "--json"))
    assert report["kind"] == "base" and report["subfolder"] == "sub"
    result = CliRunner().invoke(app, ["info", str(models / "all"), "--subfolder", "gone"])
    assert isinstance(result.exception, UserError | SystemExit) and result.exit_code != 0
    words = ["info", str(models / "all"), "--memory", "--variant", "fp16"]
    assert CliRunner().invoke(app, words).exit_code != 0


def test_base_files_of_a_recipe(models: Path, tmp_path: Path) -> None:
    """A run reads them, and so does the base that a trained decoder leaves."""
    data = tmp_path / "data"
    data.mkdir()
    lines = []
    for i in range(3):
        Image.new("RGB", (64, 64), (80 * i, 200, 30)).save(data / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": "a colour"}))
    (data / "metadata.jsonl").write_text("\n".join(lines))
    values = {
        "base": str(models / "all"),
        "base_files": {"subfolder": "sub", "vae": str(models / "vae")},
        "out": str(tmp_path / "run"),
        "device": "cpu",
        "control": {"hint_widths": [4, 8, 8, 16], "unlock_decoder": True},
        "data": {"train": str(data), "validation": str(data), "condition": "canny", "size": 64},
        "training": {"steps": 1, "batch_size": 2, "validate_every": 0, "sample_count": 0},
    }
    values["data"]["cache"] = str(tmp_path / "cache")  # type: ignore[index]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    run("train", tmp_path / "recipe.yaml")
    kept = load_file(tmp_path / "run" / "base" / "vae" / "diffusion_pytorch_model.safetensors")
    theirs = load_file(models / "vae" / "diffusion_pytorch_model.safetensors")
    assert all((kept[name] == value).all() for name, value in theirs.items())

    values["base_files"] = {"subfolder": "sub"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml")])
    assert result.exit_code == 2 and "base_files.vae" in result.stderr
    parsed = parse_recipe({**values, "base_files": {"lora": "a.safetensors:0.5"}})
    assert parsed.base_files.options() == {"lora": ("a.safetensors:0.5",)}
