from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_unet
from zeroconv.checkpoints import convert
from zeroconv.control import ControlNet
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def backbone():
    # heads and groups that no one could guess from the weights
    return tiny_backbone(unet=tiny_unet(attention_head_dim=2, norm_num_groups=4))


@pytest.fixture
def folder(backbone, tmp_path):
    control = randomise_(ControlNet.from_backbone(backbone, condition="canny"))
    control.save(tmp_path / "ours", dtype=torch.float16)
    return tmp_path / "ours"


WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_there_and_back_is_exact_and_keeps_the_config(backbone, folder, tmp_path):
    one = convert(folder, tmp_path / "one.safetensors", "original")
    assert all(key.startswith("control_model.") for key in load_file(one))
    back = convert(one, tmp_path / "back", "diffusers")
    before, after = load_file(folder / WEIGHTS), load_file(back / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(
        torch.equal(before[key], after[key]) and after[key].dtype == torch.float16 for key in before
    )
    batch = inputs(backbone)
    expected = ControlNet.load(folder)
    for path in (one, back):
        loaded = ControlNet.load(path)
        assert loaded.config == expected.config
        assert all(torch.equal(a, b) for a, b in zip(loaded(*batch), expected(*batch), strict=True))


def test_a_converted_pth_loads_in_diffusers(tmp_path):
    from diffusers import ControlNetModel

    backbone = tiny_backbone()
    control = randomise_(ControlNet.from_backbone(backbone))
    control.save(tmp_path / "c")
    state = load_file(convert(tmp_path / "c", tmp_path / "c.safetensors", "original"))
    torch.save(state, tmp_path / "c.pth")
    theirs = ControlNetModel.from_pretrained(
        convert(tmp_path / "c.pth", tmp_path / "out", "diffusers")
    )
    z, hint, t, text = inputs(backbone)
    down, mid = theirs(z, t, text.hidden, hint, return_dict=False)
    assert all(
        torch.equal(a, b) for a, b in zip(control(z, hint, t, text), [*down, mid], strict=True)
    )


def test_mistakes(backbone, folder, tmp_path):
    with pytest.raises(UserError, match="no layout 'onnx'"):
        convert(folder, tmp_path / "x", "onnx")
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        convert(folder, tmp_path / "x", "original")
    with pytest.raises(UserError, match="there is no weights file"):
        convert(tmp_path / "nothing.pth", tmp_path / "x", "diffusers")
    state = load_file(folder / WEIGHTS)
    state["conv_in.bias"] = torch.zeros(3)
    save_file(state, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"tensor conv_in\.bias has shape \[3\], expected \[16\]"):
        convert(folder, tmp_path / "x.safetensors", "original")
    assert not (tmp_path / "x.safetensors").exists()
    ControlNet.from_backbone(backbone, connections="lite").save(tmp_path / "lite")
    with pytest.raises(UserError, match="parts that no other tool knows"):
        convert(tmp_path / "lite", tmp_path / "x.safetensors", "original")
