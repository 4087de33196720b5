"""Weights in eight bits, with and without scales: what they stand for."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import tiny_backbone, tiny_backbone_xl_file
from tests.helpers.tiny_folder import save_single_file
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints.float8 import unscaled
from zeroconv.errors import UserError

KINDS = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
UNET = "model.diffusion_model."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl_file], ids=["sd", "xl"])
def test_float8_base_stands_for_its_numbers(tmp_path, kind, make) -> None:
    backbone = make()
    path = save_single_file(tmp_path / "sd.safetensors", backbone)
    state = load_file(path)
    save_file(
        {k: v.to(KINDS[kind]) if v.is_floating_point() else v for k, v in state.items()}, path
    )
    loaded = load_backbone(path).unet.state_dict()
    for key, value in backbone.unet.state_dict().items():
        assert torch.equal(loaded[key], value.to(KINDS[kind]).float())


def scaled(state: dict, kind: torch.dtype, new: bool, channels: bool) -> dict:
    """The matrices of a UNet as ComfyUI writes them."""
    largest = torch.finfo(kind).max
    made = {}
    for key, value in state.items():
        if not (key.startswith(UNET) and key.endswith(".weight") and value.ndim == 2):
            made[key] = value
            continue
        scale = value.abs().amax(dim=1) / largest if channels else value.abs().amax() / largest
        module = key.removesuffix(".weight")
        divided = value / (scale[:, None] if channels else scale)
        made[key] = divided.to(kind)
        made[f"{module}.{'weight_scale' if new else 'scale_weight'}"] = scale
        made[f"{module}.{'input_scale' if new else 'scale_input'}"] = torch.ones(())
        if new:
            text = json.dumps({"format": f"float8_{'e4m3fn' if largest < 1000 else 'e5m2'}"})
            made[f"{module}.comfy_quant"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
    if not new:
        made[UNET + "scaled_fp8"] = torch.zeros(2, dtype=kind)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("channels", [False, True])
def test_float8_scales_of_comfyui_are_multiplied_out(tmp_path, kind, new, channels) -> None:
    backbone = tiny_backbone_xl_file()
    path = save_single_file(tmp_path / "sd.safetensors", backbone)
    state = scaled(load_file(path), KINDS[kind], new, channels)
    save_file(state, path)

    loaded = load_backbone(path).unet.state_dict()
    worst = 2.0**-4 if kind == "e4m3fn" else 2.0**-3  # half a unit of the last bit
    for key, value in backbone.unet.state_dict().items():
        if value.ndim == 2:
            least = value.abs().amax() / torch.finfo(KINDS[kind]).max
            assert bool(((loaded[key] - value).abs() <= worst * value.abs() + least).all())
            assert not torch.equal(loaded[key], value)
        else:
            assert torch.equal(loaded[key], value)


DAMAGED = {
    "no weight": ({"a.scale_weight": torch.ones(())}, "not that weight"),
    "shape": (
        {"a.weight": torch.ones(2, 2), "a.scale_weight": torch.ones(3)},
        "no finite number for the tensor",
    ),
    "NaN": (
        {"a.weight": torch.ones(2, 2), "a.scale_weight": torch.tensor(float("nan"))},
        "no finite number",
    ),
    "int8": (
        {"a.weight": torch.ones(2, 2, dtype=torch.int8), "a.weight_scale": torch.ones(())},
        "int8 numbers with a scale",
    ),
    "nvfp4": (
        {
            "a.weight": torch.ones(2, 2),
            "a.comfy_quant": torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8),
        },
        "names the format 'nvfp4'",
    ),
    "no JSON": (
        {"a.weight": torch.ones(2, 2), "a.comfy_quant": torch.zeros(3, dtype=torch.uint8)},
        "names the format 'None'",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_float8_scales_that_make_no_sense_are_one_sentence(name) -> None:
    state, words = DAMAGED[name]
    with pytest.raises(UserError, match=words) as caught:
        unscaled(state, "x.safetensors")
    assert str(caught.value).startswith("x.safetensors")
