"""`zeroconv generate --image-prompt --reference` and `zeroconv info` of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.helpers.tiny_ip_adapter import tiny_ip_adapter, tiny_vision
from zeroconv.backbones import load_backbone
from zeroconv.baselines import make_baseline
from zeroconv.cli.app import app
from zeroconv.cli.generate.adapters import parse_adapters, parse_image_prompt
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter and a LLLite of the playroom, an image encoder, and pictures."""
    folder = tmp_path_factory.mktemp("adapters")
    backbone: Any = load_backbone("playroom")
    torch.save(tiny_ip_adapter("base", backbone), folder / "adapter.bin")
    tiny_vision().save_pretrained(folder / "image_encoder")
    net = make_baseline("lllite", backbone, cond_dim=4, mlp_dim=4)
    save_file(net.state_dict(), folder / "lllite.safetensors")
    for name, colour in (("red", "red"), ("mask", "white")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_generate_takes_image_prompts_and_references(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.png"
    made = run(
        "generate", "a red ball", "--steps", 1, "--out", out, "--json",
        "--image-prompt", f"{folder / 'adapter.bin'}={folder / 'red.png'}",
        "--image-prompt-scale", 0.8, "--image-prompt-region", folder / "mask.png",
        "--reference", folder / "red.png", "--reference-fidelity", 0.2,
        "--control", f"{folder / 'lllite.safetensors'}={folder / 'mask.png'}",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    first, second = json.loads(made.stdout)["adapters"]
    assert first["adapter"] == str(folder / "adapter.bin")
    assert (first["scale"], first["region"]) == (0.8, str(folder / "mask.png"))
    assert (second["fidelity"], second["picture"]) == (0.2, str(folder / "red.png"))
    assert Image.open(out).size == (64, 64) or out.is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--image-prompt", "adapter.bin"], "ADAPTER=PICTURE"),
        (["--image-prompt-scale", "0.5"], "--image-prompt ADAPTER=PICTURE"),
        (["--reference-fidelity", "0.5"], "--reference PICTURE"),
        (["--image-encoder", "clip"], "--image-prompt"),
        (
            [
                "--image-prompt",
                "a.bin=b.png",
                "--image-prompt-start",
                "0.6",
                "--image-prompt-end",
                "0.5",
            ],
            "never",
        ),
        (["--reference", "nothing.png"], "nothing.png"),
    ],
)
def test_generate_refuses_image_prompts_in_one_line(words: list[str], says: str) -> None:
    result = run("generate", "a ball", "--steps", 1, *words)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_image_prompt_words_are_read_by_what_exists(tmp_path: Path) -> None:
    adapter, picture = tmp_path / "a=b.bin", tmp_path / "c=d.png"
    adapter.write_bytes(b"x")
    picture.write_bytes(b"x")
    assert parse_image_prompt(f"{adapter}={picture}") == (str(adapter), str(picture))
    sure = json.dumps({"adapter": str(adapter), "picture": str(picture)})
    assert parse_image_prompt(sure) == (str(adapter), str(picture))
    with pytest.raises(UserError, match="not understood"):
        parse_image_prompt('{"adapter": 1, "picture": "x"}')
    specs = parse_adapters(["a.bin=x.png", "b.bin=y.png"], None, image_prompt_scale=[0.5, 0.25])
    assert [(spec.adapter, spec.scale) for spec in specs] == [("a.bin", 0.5), ("b.bin", 0.25)]
    with pytest.raises(UserError, match="3 times for 2 pictures"):
        parse_adapters(["a.bin=x.png", "b.bin=y.png"], None, image_prompt_scale=[0.5, 0.25, 1.0])


def test_info_tells_ip_adapters_and_lllites(folder: Path) -> None:
    told = run("info", folder / "adapter.bin", "--json")
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert report["kind"] == "ip_adapter"
    assert report["form"].startswith("base") and report["tokens"] == 4
    assert "image encoder" in report["needs"] and "beside it" in report["needs"]
    report = json.loads(run("info", folder / "lllite.safetensors", "--json").stdout)
    assert report["kind"] == "lllite"
    assert report["channels"] == {"embedded hint": 4, "small network": 4}
    assert report["names"] == "the original layout's"
