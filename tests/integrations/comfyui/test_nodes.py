"""The ComfyUI nodes: scales and masks by themselves; and in ComfyUI, from the checkout that COMFYUI
names. COMFYUI_PYTHON: an interpreter with what ComfyUI needs, by default this one.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zeroconv.annotators import annotate
from zeroconv.backbones import Connection
from zeroconv.errors import UserError
from zeroconv.generation.guidance import RULES

ROOT = Path(__file__).resolve().parents[3]
NODES = ROOT / "integrations" / "comfyui" / "zeroconv_nodes"
SIDES = (16, 16, 8, 4, 4)  # of residuals, the last is the middle's


@pytest.fixture(scope="module")
def applying() -> ModuleType:
    return imported("applying")


@pytest.fixture(scope="module")
def annotating() -> ModuleType:
    return imported("annotating")


def imported(name: str) -> ModuleType:
    """A module of the nodes, as ComfyUI's folder of them would be a package."""
    sys.path.insert(0, str(NODES.parent))
    try:
        return importlib.import_module(f"zeroconv_nodes.{name}")
    finally:
        sys.path.remove(str(NODES.parent))


def residuals() -> dict[str, list[Tensor | None]]:
    maps: list[Tensor | None] = [torch.ones(2, 3, side, side) for side in SIDES]
    return {"output": maps[:-1], "middle": maps[-1:]}


def flat(control: dict[str, list[Any]]) -> list[Any]:
    return [*control["output"], *control["middle"]]


@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_has_zeroconvs_own_scales(applying: ModuleType, rule: str) -> None:
    connections = [Connection(str(i), 3, 16 // side) for i, side in enumerate(SIDES)]
    expected = RULES[rule].scales(connections)
    scaled = flat(applying.scale(residuals(), rule))
    assert [float(one.unique()) for one in scaled] == pytest.approx(expected)


def test_numbers_stand_in_place_of_the_rule(applying: ModuleType) -> None:
    numbers = [0.0, 0.5, 1.0, -1.0, 2.0]
    scaled = flat(applying.scale(residuals(), "guess", numbers))
    assert [float(one.unique()) for one in scaled] == numbers
    with pytest.raises(UserError, match="5 connections"):
        applying.scale(residuals(), "both", [1.0, 2.0])


def test_a_mask_is_averaged_to_each_size(applying: ModuleType) -> None:
    mask = torch.zeros(1, 32, 32)
    mask[:, :, :16] = 1
    for one in flat(applying.scale(residuals(), mask=mask)):
        half = one.shape[-1] // 2
        assert (one[..., :half] == 1).all() and (one[..., half:] == 0).all()
    each = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    first = flat(applying.scale(residuals(), mask=each))[0]
    assert (first[0] == 0).all() and (first[1] == 1).all()
    with pytest.raises(UserError, match="3 masks do not fit 2 pictures"):
        applying.scale(residuals(), mask=torch.ones(3, 8, 8))


def test_places_without_a_residual_are_passed_over(applying: ModuleType) -> None:
    control = {"input": [None, torch.ones(1, 2, 4, 4)], "middle": [], "output": []}
    scaled = applying.scale(control, numbers=[3.0])
    assert scaled["input"][0] is None and (scaled["input"][1] == 3).all()
    assert (control["input"][1] == 1).all()  # what was given is left as it was


def test_scales_are_read_and_refused(applying: ModuleType) -> None:
    assert applying.read_scales(" ") is None
    assert applying.read_scales("1, 0.5 2") == [1.0, 0.5, 2.0]
    for text in ("one", "nan", "1e9"):
        with pytest.raises(UserError):
            applying.read_scales(text)


def picture() -> Tensor:
    image = Image.new("RGB", (64, 48), "white")
    ImageDraw.Draw(image).rectangle((10, 10, 40, 30), fill="navy")
    return torch.from_numpy(np.asarray(image).copy()).float()[None] / 255


def test_hints_are_zeroconvs_own(annotating: ModuleType) -> None:
    node, image = annotating.Annotate(), picture()
    pil = annotating.to_picture(image[0])
    (hint,) = node.draw(torch.cat([image, image]), "canny", settings="low=50 high=150")
    expected = np.asarray(annotate("canny", pil, low=50, high=150)).astype(np.float32) / 255
    assert hint.shape == (2, 48, 64, 3) and np.array_equal(hint[1].numpy(), expected)
    assert node.draw(image, "softedge", resolution=96)[0].shape == (1, 96, 128, 3)
    with pytest.raises(UserError, match="is no name=number"):
        node.draw(image, "canny", settings="low")


def test_an_inpaint_hint_is_minus_one_in_the_hole(annotating: ModuleType) -> None:
    mask = torch.zeros(1, 48, 64)
    mask[:, :, :32] = 1
    (hint,) = annotating.Annotate().draw(picture(), "inpaint", mask=mask)
    assert (hint[:, :, :30] == -1).all() and (hint[:, :, 34:] >= 0).all()
    with pytest.raises(UserError, match="needs a mask"):
        annotating.Annotate().draw(picture(), "inpaint")


# ---------------------------------------------------------------- in ComfyUI


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ComfyUI made of a control, and what diffusers makes of it. The control has Stable
    Diffusion's width and two blocks.
    """
    checkout = os.environ.get("COMFYUI")
    if not checkout:
        pytest.skip("COMFYUI names no checkout of ComfyUI")
    from diffusers import ControlNetModel

    work = tmp_path_factory.mktemp("comfyui")
    torch.manual_seed(0)
    control = ControlNetModel(
        block_out_channels=(320, 320), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1, cross_attention_dim=768, attention_head_dim=8,
    ).eval()  # fmt: skip
    for parameter in control.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    control.save_pretrained(work / "control")
    (work / "models").mkdir()
    from zeroconv.checkpoints.convert import convert

    convert(work / "control", work / "models" / "file.safetensors", "original")
    inputs: dict[str, Any] = {
        "z": torch.randn(1, 4, 8, 8),
        "text": torch.randn(1, 77, 768),
        "hint": (torch.rand(1, 3, 64, 64) > 0.8).float(),
        "mask": torch.zeros(1, 64, 64),
        "picture": picture(),
        "connections": 5,
    }
    inputs["mask"][:, :, :32] = 1
    torch.save(inputs, work / "inputs.pt")
    with torch.no_grad():
        down, middle = control(inputs["z"], 500, inputs["text"], inputs["hint"], return_dict=False)
    script = Path(__file__).with_name("in_comfyui.py")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    done = subprocess.run(
        [python, str(script), checkout, str(NODES), str(work)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    results = torch.load(work / "results.pt", weights_only=True)
    return {**results, "expected": [*down, middle]}


def close(control: dict[str, list[Tensor]], expected: list[Tensor]) -> bool:
    return all(
        torch.allclose(one, other, atol=1e-5)
        for one, other in zip(flat(control), expected, strict=True)
    )


def test_comfyui_loads_a_control_that_gives_the_same_residuals(inside: dict[str, Any]) -> None:
    assert close(inside["usual"], inside["expected"])
    assert close(inside["file"], inside["expected"])


def test_scales_masks_and_windows_act_in_comfyui(inside: dict[str, Any]) -> None:
    expected = inside["expected"]
    sides = [one.shape[-1] for one in expected]
    connections = [Connection(str(i), 320, sides[0] // side) for i, side in enumerate(sides)]
    for rule in ("both", "resolution", "guess", "prompt"):
        factors = RULES[rule].scales(connections)
        assert close(inside[rule], [0.5 * f * x for f, x in zip(factors, expected, strict=True)])
        assert inside[f"{rule} negative"] is RULES[rule].uncond
    numbers = [0.1 * i for i in range(5)]
    assert close(inside["scales"], [n * x for n, x in zip(numbers, expected, strict=True)])
    masked = [torch.cat([x[..., : s // 2], 0 * x[..., s // 2 :]], -1)
              for x, s in zip(expected, sides, strict=True)]  # fmt: skip
    assert close(inside["mask"], masked) and close(inside["copied"], masked)
    assert inside["before its end"] and not inside["after its end"]
    assert close(inside["twice"], expected)  # two of half the strength are one


def test_comfyui_says_what_cannot_be_loaded(inside: dict[str, Any]) -> None:
    refused = inside["refused"]
    assert "normalisations of 16 groups" in refused["canny"]
    assert refused[""].startswith("UserError: name is empty")
    assert refused["nothing/at/all.safetensors"].startswith("UserError")
    assert "5 connections" in refused["scales"]


def test_hints_in_comfyui(inside: dict[str, Any]) -> None:
    pil = Image.fromarray((picture()[0] * 255).byte().numpy())
    expected = np.asarray(annotate("canny", pil)).astype(np.float32) / 255
    assert np.array_equal(inside["canny"][0].numpy(), expected)


def test_the_example_workflow_fits_comfyuis_nodes(inside: dict[str, Any]) -> None:
    assert inside["workflow"] == []
