"""Every kind of model that people meet is told by the names of its tensors."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_text, tiny_unet, tiny_vae
from tests.helpers.tiny_folder import save_backbone, save_single_file
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints import convert, diffusers_to_original, identify
from zeroconv.checkpoints.identify import plain_names
from zeroconv.checkpoints.kinds import CONTROL, UNKNOWN
from zeroconv.checkpoints.lora import read_lora
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state
from zeroconv.errors import UserError


def made(name: str, *args, **options) -> list[str]:
    import diffusers

    with torch.device("meta"):
        return list(getattr(diffusers, name)(*args, **options).state_dict())


def _xs() -> list[str]:
    import diffusers

    return list(diffusers.ControlNetXSAdapter.from_unet(tiny_unet(), size_ratio=0.5).state_dict())


_DIT = {
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
}
_FLUX = {**_DIT, "num_single_layers": 1, "pooled_projection_dim": 8, "axes_dims_rope": [2, 2, 4]}
_SD3 = {**_DIT, "sample_size": 8, "caption_projection_dim": 16, "pooled_projection_dim": 8}
_UNION = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": 1,
    "cross_attention_dim": 16,
    "norm_num_groups": 8,
    "attention_head_dim": 2,
    "num_trans_channel": 16,
    "num_trans_head": 2,
    "num_proj_channel": 16,
    "addition_time_embed_dim": 8,
}

NAMES = {
    "union": lambda: made("ControlNetUnionModel", **_UNION),
    "t2i_adapter": lambda: made(
        "T2IAdapter", channels=[16, 32], num_res_blocks=1, adapter_type="full_adapter"
    ),
    "t2i_adapter of SDXL": lambda: made(
        "T2IAdapter", channels=[16, 32, 32, 32], adapter_type="full_adapter_xl"
    ),
    "t2i_adapter light": lambda: made(
        "T2IAdapter", channels=[16, 32, 32, 32], adapter_type="light_adapter"
    ),
    "t2i_adapter original": lambda: [
        "conv_in.weight",
        "body.0.block1.weight",
        "body.0.block2.bias",
    ],
    "t2i_adapter original, light": lambda: ["body.0.in_conv.weight", "body.0.body.0.block1.weight"],
    "controlnet_xs": _xs,
    "flux_control": lambda: made("FluxControlNetModel", **_FLUX),
    "flux_control of XLabs": lambda: [
        "input_hint_block.0.weight",
        "double_blocks.0.img_attn.qkv.weight",
    ],
    "sd3_control": lambda: made("SD3ControlNetModel", **_SD3),
    "qwen_control": lambda: made("QwenImageControlNetModel", **_DIT, axes_dims_rope=(2, 2, 4)),
    "z_image_control": lambda: [
        "control_all_x_embedder.2-1.weight",
        "control_layers.0.attention.to_q.weight",
    ],
    "control_lora": lambda: ["lora_controlnet", "input_hint_block.0.weight", "input_blocks.0.0.up"],
    "lllite": lambda: [
        "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight"
    ],
    "ip_adapter": lambda: ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"],
    "ip_adapter of faces": lambda: ["image_proj.norm.bias", "ip_adapter.0.to_q_lora.down.weight"],
    "lora of kohya": lambda: [
        "lora_unet_mid_block_attn.lora_down.weight",
        "lora_te_text_model.alpha",
    ],
    "lora of peft": lambda: ["base_model.model.down_blocks.0.to_q.lora_A.weight"],
    "lora of diffusers": lambda: ["unet.mid_block.to_q.lora.up.weight"],
    "lora as LoHa": lambda: ["lora_unet_x.hada_w1_a"],
    "embedding": lambda: ["emb_params"],
    "embedding of SDXL": lambda: ["clip_g", "clip_l"],
    "embedding of diffusers": lambda: ["<cat-toy>"],
    "vae": lambda: list(tiny_vae().state_dict()),
    "vae original": lambda: [
        "first_stage_model.encoder.conv_in.weight",
        "first_stage_model.quant_conv.bias",
    ],
    "unet": lambda: list(tiny_unet().state_dict()),
    "text_encoder": lambda: list(tiny_text()[0].state_dict()),
    "text_encoder T5": lambda: ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"],
    "base SDXL": lambda: [
        "conditioner.embedders.0.transformer.x",
        "model.diffusion_model.out.0.weight",
        "first_stage_model.x",
    ],
    "sdxl_refiner": lambda: [
        "conditioner.embedders.0.model.x",
        "model.diffusion_model.out.0.weight",
        "first_stage_model.x",
    ],
    "base": lambda: [
        "model.diffusion_model.out.0.weight",
        "first_stage_model.x",
        "cond_stage_model.x",
    ],
    "flux": lambda: ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"],
    "flux in ComfyUI's": lambda: ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"],
    "flux of diffusers": lambda: [
        "transformer_blocks.0.x",
        "single_transformer_blocks.0.attn.to_q.weight",
    ],
    "sd3": lambda: [
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
        "first_stage_model.x",
    ],
    "qwen": lambda: ["transformer_blocks.0.attn.to_q.weight", "txt_norm.weight"],
    "z_image": lambda: ["all_x_embedder.2-1.weight", "noise_refiner.0.attention.to_q.weight"],
    "motion": lambda: ["down_blocks.0.motion_modules.0.norm.weight"],
}


# these load or convert: what is said of damaged ones is tested with them
READ = {"union", "t2i_adapter", "controlnet_xs", "control_lora"}
READ |= {"flux_control", "sd3_control", "qwen_control", "z_image_control"}
BASES = {"base", "flux", "sd3", "qwen", "z_image"}


@pytest.mark.parametrize("name", NAMES)
def test_identify_knows_a_kind_by_its_tensors_and_refuses_it_by_name(tmp_path, name):
    names = NAMES[name]()
    kind = identify(names)
    assert kind.name == name.split(" ")[0]
    for prefix in ("", "module."):
        path = tmp_path / "model.safetensors"
        save_file({prefix + key: torch.zeros(2, 2) for key in names}, path)
        assert identify(path) == kind
        for load in (ControlNet.load, lambda p: convert(p, tmp_path / "out", "diffusers")):
            with pytest.raises(UserError) as caught:
                load(path)
            if kind.name in READ:
                continue
            assert kind.what in str(caught.value)
            assert "incomplete" not in str(caught.value) and " code" not in str(caught.value)
        if kind.name not in BASES:
            with pytest.raises(UserError, match="no base but"):
                load_backbone(path)
        if kind.name != "lora":
            with pytest.raises(UserError, match="no LoRA but"):
                read_lora(path)


CLASSES = {
    "SparseControlNetModel": "SparseCtrl",
    "FluxControlNetModel": "FLUX",
    "SD3ControlNetModel": "Stable Diffusion 3",
    "QwenImageControlNetModel": "Qwen",
    "ZImageControlNetModel": "Z-Image",
    "SanaControlNetModel": "transformer base",
    "AutoencoderKL": "VAE",
    "SomethingElse": "SomethingElse",
}


RUN = ("FLUX", "Stable Diffusion 3", "Qwen", "Z-Image")


@pytest.mark.parametrize("name", CLASSES)
def test_a_folder_of_another_class_is_named(zeroconv_info, tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name}))
    for load in (
        ControlNet.load,
        lambda p: convert(p, tmp_path / "out", "diffusers"),
        zeroconv_info,
    ):
        read = load != ControlNet.load and CLASSES[name] in RUN  # but it has no weights
        with pytest.raises(UserError, match="no weights" if read else CLASSES[name]):
            load(tmp_path)
    with pytest.raises(UserError, match="not a whole model"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("name", ["ControlNetUnionModel", "ControlNetXSAdapter", "T2IAdapter"])
def test_a_folder_of_a_published_kind_without_weights_is_said(zeroconv_info, tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name}))
    for load in (lambda p: convert(p, tmp_path / "out", "diffusers"), zeroconv_info):
        with pytest.raises(UserError, match="holds no weights"):
            load(tmp_path)


@pytest.mark.parametrize("name", ["ControlNetXSAdapter", "T2IAdapter"])
def test_a_folder_of_an_adapter_is_no_controlnet(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(UserError, match=f"holds a {name}, not a ControlNet"):
        ControlNet.load(tmp_path)


@pytest.fixture
def zeroconv_info():
    from zeroconv.cli.info.report import describe

    return lambda path: describe(str(path))


def test_a_folder_of_transformers_is_no_control(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}'
    )
    with pytest.raises(UserError, match="text encoder"):
        ControlNet.load(tmp_path)


def test_a_folder_around_one_file_names_that_file(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "control.safetensors")
    with pytest.raises(UserError, match=r"give the file in it, .*control\.safetensors"):
        ControlNet.load(tmp_path)


def test_a_model_of_another_family_is_named_by_its_pipeline(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "vae").mkdir()
    (tmp_path / "model_index.json").write_text('{"_class_name": "SanaPipeline"}')
    with pytest.raises(UserError, match="SanaPipeline, which zeroconv does not run yet"):
        load_backbone(tmp_path)


def test_what_nothing_tells_is_unknown():
    assert identify(["a.weight"]) is UNKNOWN
    assert identify([]) is UNKNOWN


# ---------------------------------------------------------------- controls behind prefixes

WRAPPED = (
    "module.",
    "controlnet.",
    "_orig_mod.",
    "model.",
    "module.controlnet.",
    "_orig_mod.module.",
    "net.",
)


@pytest.fixture(scope="module")
def control():
    return randomise_(ControlNet.from_backbone(tiny_backbone()))


@pytest.mark.parametrize("prefix", WRAPPED)
@pytest.mark.parametrize("layout", ["diffusers", "original", "original, bare"])
def test_a_control_behind_a_wrappers_prefix_loads(control, tmp_path, prefix, layout):
    state = diffusers_state(control)
    if layout != "diffusers":
        state = diffusers_to_original(state, prefix="" if "bare" in layout else "control_model.")
    torch.save(
        {"state_dict": {prefix + key: value for key, value in state.items()}}, tmp_path / "c.ckpt"
    )
    assert identify(tmp_path / "c.ckpt") is CONTROL
    loaded = ControlNet.load(tmp_path / "c.ckpt").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in control.state_dict().items())


def test_a_control_inside_a_pipeline_loads(control, tmp_path):
    state = {f"controlnet.{key}": value for key, value in diffusers_state(control).items()}
    state |= {"unet.conv_in.weight": torch.zeros(2), "vae.encoder.conv_in.weight": torch.zeros(2)}
    save_file(state, tmp_path / "c.safetensors")
    loaded = ControlNet.load(tmp_path / "c.safetensors").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in control.state_dict().items())


def test_no_prefix_is_guessed():
    for names in (
        ["module.a", "b"],
        ["controlnetwork.a"],
        ["model.diffusion_model.a", "model.diffusion_model.b"],
    ):
        assert plain_names(names) == {name: name for name in names}


def test_a_base_behind_a_wrappers_prefix_loads(tmp_path):
    backbone = tiny_backbone()
    path = save_single_file(tmp_path / "sd.safetensors", backbone)
    from safetensors.torch import load_file

    save_file({f"module.{key}": value for key, value in load_file(path).items()}, path)
    assert load_backbone(path).connections == backbone.connections


def test_the_kind_of_a_folder(tmp_path, control):
    save_backbone(tmp_path / "base")
    control.save(tmp_path / "control")
    assert identify(tmp_path / "base").name == "base"
    assert identify(tmp_path / "control").name == "control"
