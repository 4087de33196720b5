"""Controls that are not simply a whole copy: differences, pooled ones, small ones, other hints,
damaged ones.
"""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.backbones.loading.building import channels_last_
from zeroconv.checkpoints import convert, diffusers_to_original
from zeroconv.cli.info.report import describe
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state
from zeroconv.control.transfer import transfer_files
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def control(backbone):
    made = randomise_(ControlNet.from_backbone(backbone))
    with torch.no_grad():  # as trained: no longer its base's encoder
        for parameter in made.copy.parameters():
            parameter.add_(0.01)
    return made


def difference_file(control, backbone, path, layout: str, mark: str):
    """What kohya's tool writes: control − base for the copy's tensors, the rest as it is, and a
    mark.
    """
    base = backbone.encoder.state_dict()
    state = {k: v - base[k] if k in base else v for k, v in diffusers_state(control).items()}
    if layout != "diffusers":
        state = diffusers_to_original(state, prefix="" if layout == "bare" else "control_model.")
    save_file({**{k: v.contiguous() for k, v in state.items()}, mark: torch.tensor(1.0)}, path)
    return path


@pytest.mark.parametrize("layout", ["original", "bare", "diffusers"])
@pytest.mark.parametrize("mark", ["difference", "control_model.difference"])
def test_a_difference_control_gets_its_bases_weights(backbone, control, tmp_path, layout, mark):
    if layout == "bare" and mark != "difference":
        pytest.skip("a bare file has no prefix")
    path = difference_file(
        control, backbone, tmp_path / "diff_control_sd15.safetensors", layout, mark
    )
    with pytest.warns(UserWarning, match="the weights of tiny were added"):
        loaded = ControlNet.load(path, backbone=backbone)
    for key, value in control.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key], value, atol=1e-6), key
    with pytest.raises(UserError, match="only the difference to its base"):
        ControlNet.load(path)
    with pytest.raises(UserError, match="only the difference to its base"):
        convert(path, tmp_path / "out", "diffusers")
    report = describe(str(path))
    assert report["difference_to_its_base"] and "difference" in report["notes"]


def test_a_difference_control_of_another_base_is_refused(backbone, control, tmp_path):
    path = difference_file(control, backbone, tmp_path / "d.safetensors", "original", "difference")
    wide = tiny_backbone(unet=tiny_unet(block_out_channels=(16, 32, 48, 48)))
    with pytest.raises(UserError, match="made from another base"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ControlNet.load(path, backbone=wide)


def test_transfer_makes_a_difference_control_complete(backbone, control, tmp_path):
    from tests.helpers.tiny_folder import save_backbone

    save_backbone(tmp_path / "base", backbone)
    path = difference_file(control, backbone, tmp_path / "d.safetensors", "original", "difference")
    with pytest.warns(UserWarning, match="were added"):
        transfer_files(path, tmp_path / "base", tmp_path / "base", tmp_path / "whole", "unchanged")
    complete = ControlNet.load(tmp_path / "whole").state_dict()
    assert all(torch.allclose(complete[k], v, atol=1e-6) for k, v in control.state_dict().items())


# ---------------------------------------------------------------- shuffle

SHUFFLES = ("control_v11e_sd15_shuffle.pth", "Shuffle.ckpt", "t-shuffle-v2.safetensors")
OTHERS = ("reshuffled.pth", "control_v11p_sd15_canny.pth")


def original(control, path):
    torch.save(diffusers_to_original(diffusers_state(control)), path)
    return path


@pytest.mark.parametrize("name", SHUFFLES)
def test_a_control_called_shuffle_is_pooled_and_says_so(backbone, control, tmp_path, name):
    path = original(control, tmp_path / name) if not name.endswith("s") else tmp_path / name
    if name.endswith("s"):
        state = diffusers_to_original(diffusers_state(control))
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    with pytest.warns(UserWarning, match="is called shuffle, so its residuals are averaged"):
        loaded = ControlNet.load(path)
    batch = inputs(backbone)
    channels_last_(control)
    for ours, plain in zip(loaded(*batch), control(*batch), strict=True):
        assert torch.allclose(ours, plain.mean((-2, -1), keepdim=True), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not ControlNet.load(path, global_average_pooling=False).pool
    report = describe(str(path))
    assert report["global_average_pooling"] and "shuffle" in report["notes"]
    with pytest.warns(UserWarning, match="shuffle"):
        convert(path, tmp_path / "folder", "diffusers")
    assert (
        json.loads((tmp_path / "folder" / "config.json").read_text())["global_pool_conditions"]
        is True
    )


@pytest.mark.parametrize("name", OTHERS)
def test_a_control_called_otherwise_is_not_pooled(control, tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not ControlNet.load(original(control, tmp_path / name)).pool
    assert ControlNet.load(tmp_path / name, global_average_pooling=True).pool


def test_a_config_says_more_than_a_name(backbone, control, tmp_path):
    control.save(tmp_path / "my_shuffle")  # its config says that it is not pooled
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not ControlNet.load(tmp_path / "my_shuffle").pool


# ---------------------------------------------------------------- small and mid controls of SDXL

SMALL = {"down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D"}
SIZES = {
    "small": {**SMALL, "transformer_layers_per_block": 1},
    "mid": {"transformer_layers_per_block": (1, 0, 1)},
    "mid, none": {"transformer_layers_per_block": (1, 0, 0)},
    "other depths": {"transformer_layers_per_block": (1, 1, 1)},
}


def sized(backbone, options):
    from diffusers import ControlNetModel

    from zeroconv.backbones.encoder import controlnet_config

    torch.manual_seed(3)
    config = {**controlnet_config(dict(backbone.unet.config)), **options}
    return randomise_(ControlNetModel(**config)).eval()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", ["diffusers", "original", "folder"])
def test_smaller_controls_of_sdxl_load_and_run_as_in_diffusers(tmp_path, size, layout):
    backbone = tiny_backbone_xl()
    theirs = sized(backbone, SIZES[size])
    path = tmp_path / "c.safetensors"
    if layout == "folder":
        path = tmp_path / "c"
        theirs.save_pretrained(path)
    else:
        state = theirs.state_dict()
        save_file(diffusers_to_original(state) if layout == "original" else state, path)

    control = ControlNet.load(path, backbone=backbone)
    channels_last_(theirs)
    z, hint, t, text = inputs(backbone)
    added = {"text_embeds": text.pooled, "time_ids": text.time_ids}
    down, mid = theirs(z, t, text.hidden, hint, added_cond_kwargs=added, return_dict=False)
    assert all(
        torch.equal(a, b) for a, b in zip(control(z, hint, t, text), [*down, mid], strict=True)
    )
    assert mid.any()

    generate(backbone, "x", [Control(control, Image.new("RGB", (64, 64)))], steps=1)
    if layout == "original":
        convert(path, tmp_path / "back", "diffusers")
        back = load_file(tmp_path / "back" / WEIGHTS)
        assert back.keys() == theirs.state_dict().keys()


# ---------------------------------------------------------------- other hints


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_a_control_of_other_hint_channels_says_so_and_takes_tensors(backbone, tmp_path, channels):
    control = randomise_(ControlNet.from_backbone(backbone, hint_channels=channels))
    control.save(tmp_path / "c")
    report = describe(str(tmp_path / "c"))
    assert report["hint_channels"] == channels
    assert f"{channels} channels" in report["notes"]
    with pytest.raises(UserError, match=f"reads hints of {channels} channels, but the hint has 3"):
        generate(backbone, "x", [Control(control, Image.new("RGB", (64, 64)))], steps=1)
    assert generate(backbone, "x", [Control(control, torch.rand(channels, 64, 64))], steps=1)


def test_a_control_of_other_latents_is_refused(backbone, tmp_path):
    wide = tiny_backbone(unet=tiny_unet(in_channels=6, out_channels=6))
    ControlNet.from_backbone(wide).save(tmp_path / "c")
    with pytest.raises(UserError, match="reads latents of 6 channels, tiny has 4"):
        ControlNet.load(tmp_path / "c", backbone=backbone)


# ---------------------------------------------------------------- damaged


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("key", ["conv_in.bias", "controlnet_mid_block.weight"])
def test_a_control_with_nan_is_refused_naming_the_tensor(control, tmp_path, value, dtype, key):
    control.save(tmp_path / "c", dtype)
    state = load_file(tmp_path / "c" / WEIGHTS)
    state[key].view(-1)[-1] = value
    save_file(state, tmp_path / "c" / WEIGHTS)
    for load in (
        ControlNet.load,
        lambda p: convert(p, tmp_path / "o.safetensors", "original"),
        describe,
    ):
        with pytest.raises(
            UserError, match=f"tensor {key} holds 1 values that are no numbers"
        ) as caught:
            load(str(tmp_path / "c"))
        assert str(tmp_path / "c") in str(caught.value)


def test_a_control_too_large_for_float16_is_refused_and_loads_in_bfloat16(control, tmp_path):
    control.save(tmp_path / "c")
    state = load_file(tmp_path / "c" / WEIGHTS)
    state["conv_in.bias"][0] = 1e6
    save_file(state, tmp_path / "c" / WEIGHTS)
    with pytest.raises(UserError, match="too large for float16"):
        ControlNet.load(tmp_path / "c", dtype=torch.float16)
    assert ControlNet.load(tmp_path / "c", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert ControlNet.load(tmp_path / "c").dtype == torch.float32


def test_control_of_integers_is_refused(control, tmp_path):
    control.save(tmp_path / "c")
    state = load_file(tmp_path / "c" / WEIGHTS)
    save_file(
        {**state, "conv_in.weight": state["conv_in.weight"].to(torch.int8)},
        tmp_path / "c" / WEIGHTS,
    )
    with pytest.raises(UserError, match=r"conv_in\.weight holds int8 numbers, not floats"):
        ControlNet.load(tmp_path / "c")
