"""Controls of other kinds on the command line: drawn with, described, refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_
from zeroconv.backbones import load_backbone
from zeroconv.cli.generate.controls import parse_control
from zeroconv.control import ControlNetUnion
from zeroconv.control.naming import split_kind
from zeroconv.errors import UserError
from zeroconv.evaluation.controls import condition_of, of_condition


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """union/, adapter/ and xs/, as published."""
    from diffusers import ControlNetXSAdapter, T2IAdapter

    folder = tmp_path_factory.mktemp("published")
    base = load_backbone(str(models / "base"))
    net = randomise_(ControlNetUnion.from_backbone(base))
    torch.nn.init.normal_(net.spatial_ch_projs.weight)
    net.save(folder / "union")
    T2IAdapter(channels=list(base.unet.config.block_out_channels)).save_pretrained(
        folder / "adapter"
    )
    widths = {"conditioning_embedding_out_channels": (4, 8, 8, 8)}
    xs = randomise_(ControlNetXSAdapter.from_unet(base.unet, size_ratio=0.5, **widths))
    xs.save_pretrained(folder / "xs")
    return folder


@pytest.mark.slow
def test_controls_of_other_kinds_are_drawn_with(
    zeroconv, models: Path, photo: Path, folder: Path, tmp_path: Path
) -> None:
    base = ("generate", "a ball", "--base", models / "base", "--steps", 1)
    union, adapter, xs = (folder / name for name in ("union", "adapter", "xs"))
    pictures = []
    for name, controls in {
        "plain": (),
        "drawn": (f"{union}:canny:{photo}",),
        "two": (f"{union}:canny:{photo}", f"{union}:Depth={photo}"),
        "adapter": (f"{adapter}={photo}",),
        "xs": (f"{xs}={photo}", f"{models / 'canny'}={photo}"),
    }.items():
        words = [word for control in controls for word in ("--control", control)]
        size = ("--width", 64, "--height", 64, "--out", tmp_path / f"{name}.png")
        result = zeroconv(*base, *words, *size)
        assert result.exit_code == 0, result.output
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    for i, one in enumerate(pictures):
        assert not any((one == other).all() for other in pictures[:i])

    result = zeroconv(*base, "--control", f"{union}={photo}", "--out", tmp_path / "x.png")
    assert result.exit_code == 2 and "say what its hint shows" in result.stderr
    result = zeroconv(*base, "--control", f"{union}:tile={photo}", "--out", tmp_path / "x.png")
    assert result.exit_code == 2 and "has 6 kinds" in result.stderr


def test_union_kinds_are_cut_off_their_control(folder: Path, photo: Path) -> None:
    union = str(folder / "union")
    assert parse_control(f"{union}:canny={photo}") == (f"{union}:canny", str(photo), False)
    assert parse_control(f"{union}:Normal Map:{photo}")[::2] == (f"{union}:Normal Map", True)
    assert split_kind(f"{union}:canny") == (union, "canny")
    assert split_kind("owner/union:hed") == ("owner/union", "hed")
    assert split_kind("nowhere.safetensors:canny") == ("nowhere.safetensors:canny", None)
    assert split_kind(union) == (union, None)


def test_info_names_kinds_of_controls_and_what_they_need(zeroconv, folder: Path) -> None:
    reports = {
        name: json.loads(zeroconv("info", folder / name, "--json").stdout)
        for name in ("union", "adapter", "xs")
    }
    kinds = [report["kind"] for report in reports.values()]
    assert kinds == ["union", "t2i_adapter", "controlnet_xs"]
    assert reports["union"]["kinds_of_hints"].startswith("openpose, depth, scribble, canny")
    assert "kind for each hint" in reports["union"]["notes"]
    assert reports["adapter"]["squares"] == 8 and "needs a base" in reports["adapter"]["notes"]
    assert reports["xs"]["text_width"] == 32 and "needs a base" in reports["xs"]["notes"]
    assert "t2i adapter" in zeroconv("info", folder / "adapter").stdout.replace("_", " ")


@pytest.mark.slow
def test_evaluate_measures_one_kind_of_a_union(
    zeroconv, models: Path, folder: Path, tmp_path: Path
) -> None:
    few = ("--base", models / "base", "--limit", 2, "--limit-none", 0, "--steps", 1)
    figures = []
    for words in ((f"{folder / 'union'}:canny",), (folder / "union", "--condition", "canny")):
        result = zeroconv("evaluate", *words, *few, "--json", "-")
        assert result.exit_code == 0, result.output
        figures.append(json.loads(result.stdout)["metrics"])
    assert figures[0] == figures[1]


def test_evaluate_is_told_what_the_hints_of_other_controls_show(models: Path, folder: Path) -> None:
    base = load_backbone(str(models / "base"))
    with pytest.raises(UserError, match=r"one kind is measured.*openpose, depth"):
        of_condition(folder / "union", base, None)
    net = of_condition(folder / "adapter", base, "scribble")
    with pytest.raises(UserError, match="--condition canny"):
        condition_of(net)
    assert condition_of(net, "hed") == "softedge"
    with pytest.raises(UserError, match="no condition 'haze'"):
        condition_of(net, "haze")
    with pytest.warns(UserWarning, match="show canny; they are drawn and scored as depth"):
        assert condition_of(of_condition(models / "canny", base, "depth"), "depth") == "depth"
    with pytest.raises(UserError, match="only a Union control has kinds"):
        of_condition(f"{models / 'canny'}:depth", base, None)
