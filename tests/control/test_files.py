from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.backbones.loading.building import channels_last_
from zeroconv.checkpoints import diffusers_to_original
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state
from zeroconv.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


def same(ours, theirs, batch) -> bool:
    for control in (ours, theirs):  # how weights lie in memory decides the last bits
        channels_last_(control)
    return all(torch.equal(a, b) for a, b in zip(ours(*batch), theirs(*batch), strict=True))


VARIANTS = [
    {},
    {"condition": "canny", "hint_widths": (8, 8, 16, 24)},
    {"connections": "gaussian"},
    {"connections": "lite"},
    {"hint_encoder": "paper"},
    {"hint_encoder": "paper", "connections": "lite", "hint_channels": 3},
    {"only_mid_control": True},
    {"global_average_pooling": True},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_variant_comes_back_exactly(backbone, tmp_path, options):
    control = randomise_(ControlNet.from_backbone(backbone, **options))
    control.save(tmp_path / "c")
    loaded = ControlNet.load(tmp_path / "c", backbone=backbone)
    assert loaded.config == control.config
    assert loaded.connections == control.connections
    assert list(loaded.state_dict()) == list(control.state_dict())
    assert same(loaded, control, inputs(backbone))
    assert all(p.requires_grad for p in loaded.parameters())


def test_sdxl_comes_back_exactly(tmp_path):
    backbone = tiny_backbone_xl()
    control = randomise_(ControlNet.from_backbone(backbone))
    control.save(tmp_path / "c")
    assert same(ControlNet.load(tmp_path / "c", backbone=backbone), control, inputs(backbone))


def test_what_it_was_made_for_is_written_down(backbone, tmp_path):
    ControlNet.from_backbone(backbone, condition="canny").save(tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert config["_class_name"] == "ControlNetModel"
    assert config["zeroconv"]["condition"] == "canny"
    assert config["zeroconv"]["base"] == "tiny"
    assert ControlNet.load(tmp_path / "c").config["zeroconv"]["condition"] == "canny"


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize(
    "options", [{}, {"global_average_pooling": True}, {"connections": "gaussian"}], ids=str
)
def test_ours_loads_in_diffusers(make, options, tmp_path):
    from diffusers import ControlNetModel

    backbone = make()
    control = randomise_(ControlNet.from_backbone(backbone, **options))
    control.save(tmp_path / "c")
    theirs = ControlNetModel.from_pretrained(tmp_path / "c")
    z, hint, t, text = inputs(backbone)
    added = (
        {"text_embeds": text.pooled, "time_ids": text.time_ids} if text.pooled is not None else None
    )
    down, mid = theirs(z, t, text.hidden, hint, added_cond_kwargs=added, return_dict=False)
    assert all(
        torch.equal(a, b) for a, b in zip(control(z, hint, t, text), [*down, mid], strict=True)
    )


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
def test_diffusers_loads_in_ours(make, tmp_path):
    from diffusers import ControlNetModel

    backbone = make()
    theirs = randomise_(ControlNetModel.from_unet(backbone.unet))
    theirs.save_pretrained(tmp_path / "c")
    control = ControlNet.load(tmp_path / "c", backbone=backbone)
    channels_last_(theirs)
    z, hint, t, text = inputs(backbone)
    added = (
        {"text_embeds": text.pooled, "time_ids": text.time_ids} if text.pooled is not None else None
    )
    down, mid = theirs(z, t, text.hidden, hint, added_cond_kwargs=added, return_dict=False)
    assert all(
        torch.equal(a, b) for a, b in zip(control(z, hint, t, text), [*down, mid], strict=True)
    )
    assert mid.any()


@pytest.mark.parametrize(
    "layout", ["diffusers", "original", "original without prefix", "inside a full model"]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
def test_one_file_of_any_layout(backbone, tmp_path, layout, suffix):
    control = randomise_(ControlNet.from_backbone(backbone))
    state = diffusers_state(control)
    if layout != "diffusers":
        state = diffusers_to_original(state, prefix="" if "without" in layout else "control_model.")
    if "full" in layout:
        state["model.diffusion_model.out.0.weight"] = torch.zeros(3)
        state["first_stage_model.encoder.conv_in.bias"] = torch.zeros(3)
    path = tmp_path / f"control{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if suffix == ".ckpt" else state, path)
    # heads and groups cannot be seen in weights; the tiny backbone has those that are inferred
    assert same(ControlNet.load(path), control, inputs(backbone))


def test_one_file_takes_heads_and_groups_from_the_backbone(tmp_path):
    backbone = tiny_backbone(unet=tiny_unet(attention_head_dim=2, norm_num_groups=4))
    control = randomise_(ControlNet.from_backbone(backbone))
    save_file(diffusers_to_original(diffusers_state(control)), tmp_path / "c.safetensors")
    assert same(
        ControlNet.load(tmp_path / "c.safetensors", backbone=backbone), control, inputs(backbone)
    )
    assert not same(ControlNet.load(tmp_path / "c.safetensors"), control, inputs(backbone))


def test_half_precision_is_stored_and_read_as_asked(backbone, tmp_path):
    control = randomise_(ControlNet.from_backbone(backbone))
    control.save(tmp_path / "c", dtype=torch.float16)
    assert {v.dtype for v in load_file(tmp_path / "c" / WEIGHTS).values()} == {torch.float16}
    assert control.dtype == torch.float32
    loaded = ControlNet.load(tmp_path / "c")
    assert loaded.dtype == torch.float32
    batch = inputs(backbone)
    assert torch.allclose(loaded(*batch)[4], control(*batch)[4], atol=1e-2)
    assert not same(loaded, control, batch)
    assert ControlNet.load(tmp_path / "c", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_saving_a_control_replaces_all_of_the_folder_or_nothing(backbone, tmp_path, monkeypatch):
    control = ControlNet.from_backbone(backbone)
    control.save(tmp_path / "c")
    before = (tmp_path / "c" / WEIGHTS).read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("zeroconv.control.files.save_file", full)
    with pytest.raises(OSError, match="no space"):
        randomise_(control).save(tmp_path / "c")
    assert (tmp_path / "c" / WEIGHTS).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


# ---------------------------------------------------------------- mistakes: one sentence each


def sentence(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        ControlNet.load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Code:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_nothing_there_or_something_else(tmp_path, capsys):
    assert "there is no ControlNet" in sentence(tmp_path / "nothing")
    assert "embedded ControlNet 'playroom-nonsense' is not in" in sentence("playroom-nonsense")
    assert "holds no ControlNet" in sentence(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    assert "holds a UNet2DConditionModel, not a ControlNet" in sentence(tmp_path)
    sd = {f"{part}.x": torch.zeros(1) for part in ("model.diffusion_model", "first_stage_model")}
    save_file(sd, tmp_path / "sd.safetensors")
    assert "a whole Stable Diffusion (load it as a backbone)" in sentence(
        tmp_path / "sd.safetensors"
    )
    save_file({"lora_unet.up.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert "but a LoRA" in sentence(tmp_path / "lora.safetensors")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Code(), protocol=2))
    assert "holds more than tensors" in sentence(tmp_path / "evil.pth")
    assert "this must never run" not in capsys.readouterr().out


@pytest.fixture
def folder(backbone, tmp_path):
    ControlNet.from_backbone(backbone).save(tmp_path / "c")
    return tmp_path / "c"


def test_weights_that_are_missing_broken_or_of_another_shape(folder):
    path = folder / WEIGHTS
    state = load_file(path)
    save_file({**state, "conv_in.weight": torch.zeros(16, 8, 3, 3)}, path)
    assert "tensor conv_in.weight has shape [16, 8, 3, 3], expected [16, 4, 3, 3]" in sentence(
        folder
    )
    save_file(
        {k: v for k, v in state.items() if not k.startswith("controlnet_down_blocks.1")}, path
    )
    assert "lacks controlnet_down_blocks.1.weight, controlnet_down_blocks.1.bias" in sentence(
        folder
    )
    path.write_bytes(path.read_bytes()[:500])
    assert "is damaged" in sentence(folder)
    path.unlink()
    assert "holds no weights" in sentence(folder)


def test_a_control_of_another_base(folder):
    wide = tiny_backbone(unet=tiny_unet(block_out_channels=(32, 32, 32, 48)))
    assert "its channels are 16/16/16/16/32" in sentence(folder, backbone=wide)
    other_text = tiny_backbone(unet=tiny_unet(cross_attention_dim=48))
    assert "reads text states 32 wide, tiny gives 48" in sentence(folder, backbone=other_text)
