from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils

from tests.helpers.stable_diffusion import SD15, SD21, meta_backbone
from tests.helpers.tiny import (
    randomise_,
    tiny_backbone,
    tiny_backbone_xl,
    tiny_text,
    tiny_unet,
    tiny_unet_xl,
    tiny_vae,
)
from zeroconv.checkpoints import diffusers_to_original, infer_config, original_to_diffusers
from zeroconv.checkpoints.infer import infer_text_config, infer_unet_config, infer_vae_config
from zeroconv.checkpoints.names import Topology, inverse, rename, unet_names
from zeroconv.checkpoints.stable_diffusion import (
    StableDiffusion,
    bare_text,
    from_single_file,
    to_single_file,
)
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state
from zeroconv.errors import UserError


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def tiny_control(make=tiny_backbone, **options):
    return randomise_(ControlNet.from_backbone(make(), **options))


# ---------------------------------------------------------------- ControlNet


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_there_and_back_is_exact(make, prefix):
    state = diffusers_state(tiny_control(make))
    original = diffusers_to_original(state, prefix=prefix)
    assert len(original) == len(state)
    assert all(key.startswith(prefix) for key in original)
    assert equal(original_to_diffusers(original), state)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
def test_the_original_layout_is_the_one_diffusers_reads(make):
    backbone = make()
    state = diffusers_state(tiny_control(make))
    theirs = single_file_utils.convert_controlnet_checkpoint(
        diffusers_to_original(state), backbone.unet.config
    )
    theirs = {key: value for key, value in theirs.items() if value is not None}
    shared = {
        key: value for key, value in state.items() if not key.startswith("add_embedding")
    }  # diffusers drops these
    assert equal({key: theirs[key] for key in shared}, shared)


def test_names_of_sd15():
    state = diffusers_state(ControlNet.from_backbone(meta_backbone(SD15)))
    original = diffusers_to_original(state)
    assert len(original) == 340
    shapes = {
        key.removeprefix("control_model."): tuple(value.shape) for key, value in original.items()
    }
    assert shapes["time_embed.0.weight"] == (1280, 320)
    assert shapes["input_blocks.0.0.weight"] == (320, 4, 3, 3)
    assert shapes["input_blocks.3.0.op.weight"] == (320, 320, 3, 3)
    assert shapes["input_blocks.4.0.skip_connection.weight"] == (640, 320, 1, 1)
    assert shapes["input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight"] == (1280, 768)
    assert shapes["input_blocks.11.0.out_layers.3.weight"] == (1280, 1280, 3, 3)
    assert "input_blocks.10.1.norm.weight" not in shapes
    assert shapes["input_hint_block.0.weight"] == (16, 3, 3, 3)
    assert shapes["input_hint_block.14.weight"] == (320, 256, 3, 3)
    assert shapes["zero_convs.11.0.weight"] == (1280, 1280, 1, 1)
    assert shapes["middle_block.1.proj_in.weight"] == (1280, 1280, 1, 1)
    assert shapes["middle_block.2.in_layers.0.weight"] == (1280,)
    assert shapes["middle_block_out.0.bias"] == (1280,)
    assert original_to_diffusers(original).keys() == state.keys()


@pytest.mark.parametrize("config", [SD15, SD21], ids=["sd15", "sd21"])
def test_the_config_is_read_off_the_shapes(config):
    control = ControlNet.from_backbone(meta_backbone(config))
    inferred = infer_config(diffusers_state(control))
    heads = inferred["attention_head_dim"]
    assert heads == (8 if config is SD15 else [5, 10, 20, 20])
    for key, value in inferred.items():
        expected = control.config[key]
        assert value == (list(expected) if isinstance(expected, tuple) else expected), key


def test_the_config_of_a_tiny_one_and_of_other_hints():
    control = tiny_control(hint_widths=(4, 8, 8, 12), hint_channels=4)
    inferred = infer_config(diffusers_state(control))
    assert inferred["conditioning_channels"] == 4
    assert inferred["conditioning_embedding_out_channels"] == [4, 8, 8, 12]
    assert all(control.config[key] == value for key, value in inferred.items())
    xl = tiny_control(tiny_backbone_xl)
    inferred = infer_config(diffusers_state(xl))
    assert inferred["transformer_layers_per_block"] == [1, 2, 2]
    assert inferred["addition_embed_type"] == "text_time"


def test_missing_and_unknown_tensors_are_named():
    original = diffusers_to_original(diffusers_state(tiny_control()))
    short = {
        key: value
        for key, value in original.items()
        if "zero_convs.3" not in key and "time_embed.2" not in key
    }
    with pytest.raises(UserError, match=r"lacks time_embed\.2\.weight, zero_convs\.3\.0\.weight"):
        original_to_diffusers(short, "x.pth")
    more = {
        **original,
        "control_model.zero_convs.12.0.weight": torch.zeros(1),
        "control_model.extra": torch.zeros(1),
    }
    with pytest.raises(UserError, match=r"x\.pth has the unknown zero_convs\.12\.0\.weight, extra"):
        original_to_diffusers(more, "x.pth")
    with pytest.raises(UserError, match="no ControlNet in the original layout"):
        original_to_diffusers({"a": torch.zeros(1)})
    with pytest.raises(UserError, match="only a ControlNet with the released hint encoder"):
        diffusers_to_original(diffusers_state(tiny_control(hint_encoder="paper")))
    state = diffusers_state(tiny_control())
    del state["mid_block.resnets.1.conv2.weight"]
    with pytest.raises(UserError, match=r"lacks mid_block\.resnets\.1\.conv2\.weight"):
        diffusers_to_original(state)


# ---------------------------------------------------------------- a whole Stable Diffusion


@pytest.mark.parametrize("make", [tiny_unet, tiny_unet_xl])
def test_the_unet_is_renamed_as_diffusers_does(make):
    unet = make()
    state = unet.state_dict()
    names = unet_names(Topology.of_diffusers(state))
    original = rename(state, names, "UNet")
    assert equal(
        rename(original, inverse(unet_names(Topology.of_original(original))), "UNet"), state
    )
    prefixed = {"model.diffusion_model." + key: value for key, value in original.items()}
    assert equal(single_file_utils.convert_ldm_unet_checkpoint(prefixed, unet.config), state)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_autoencoder_is_renamed_as_diffusers_does(layers):
    vae = tiny_vae(layers_per_block=layers)
    text, _ = tiny_text()
    single_file = to_single_file(
        StableDiffusion(tiny_unet().state_dict(), vae.state_dict(), text.state_dict(), False)
    )
    assert equal(
        single_file_utils.convert_ldm_vae_checkpoint(single_file, vae.config), vae.state_dict()
    )
    assert equal(from_single_file(single_file).vae, vae.state_dict())


@pytest.mark.parametrize("open_clip", [False, True])
def test_text_there_and_back(open_clip):
    text, _ = tiny_text()
    state = bare_text(text.state_dict())
    single_file = to_single_file(
        StableDiffusion(tiny_unet().state_dict(), tiny_vae().state_dict(), state, open_clip)
    )
    # what every full checkpoint also holds
    single_file |= {
        "betas": torch.zeros(1000),
        "model_ema.decay": torch.zeros(1),
        "first_stage_model.loss.x": torch.zeros(1),
    }
    parts = from_single_file(single_file)
    assert parts.open_clip == open_clip
    assert equal(parts.text, state)
    if open_clip:
        prefix = "cond_stage_model.model.transformer.resblocks"
        assert f"{prefix}.2.ln_1.weight" in single_file, (
            "OpenCLIP's last layer, which Stable Diffusion 2 does not read"
        )
        assert single_file[f"{prefix}.0.attn.in_proj_weight"].shape == (96, 32)
        theirs = single_file_utils.convert_open_clip_checkpoint(text, single_file)
        theirs = bare_text(theirs)
        layers = {
            key: value for key, value in theirs.items() if key in state and "embeddings" not in key
        }
        assert len(layers) > 20
        assert equal(layers, {key: state[key] for key in layers})


@pytest.mark.parametrize(
    ("config", "open_clip"), [(SD15, False), (SD21, True)], ids=["sd15", "sd21"]
)
def test_names_and_configs_at_full_size(config, open_clip):
    from transformers import CLIPTextConfig, CLIPTextModel

    width, layers = (1024, 23) if open_clip else (768, 12)
    vae_config = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    }
    text_config = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "projection_dim": 512,
    }
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**config), AutoencoderKL(**vae_config)
        text = CLIPTextModel(CLIPTextConfig(**text_config))
    states = StableDiffusion(
        unet.state_dict(), vae.state_dict(), bare_text(text.state_dict()), open_clip
    )
    single_file = to_single_file(states)
    prefixes = {".".join(key.split(".")[:2]) for key in single_file}
    assert "model.diffusion_model" in prefixes
    assert (
        "cond_stage_model.model" in prefixes
        if open_clip
        else "cond_stage_model.transformer" in prefixes
    )
    assert single_file["model.diffusion_model.output_blocks.11.1.proj_out.weight"].shape[0] == 320
    assert single_file["model.diffusion_model.output_blocks.5.2.conv.weight"].shape == (
        1280,
        1280,
        3,
        3,
    )
    assert single_file["first_stage_model.decoder.up.3.block.2.conv1.weight"].shape == (
        512,
        512,
        3,
        3,
    )
    assert single_file["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)

    parts = from_single_file(single_file)
    assert parts.unet.keys() == states.unet.keys()
    assert parts.vae.keys() == states.vae.keys()
    assert parts.text.keys() == states.text.keys()
    assert (len(parts.unet), len(parts.vae)) == (686, 248)
    size = config["sample_size"]
    assert built(UNet2DConditionModel, infer_unet_config(parts.unet, size)) == shapes(unet)
    assert built(AutoencoderKL, infer_vae_config(parts.vae)) == shapes(vae)
    inferred = infer_text_config(parts.text, "gelu")
    assert all(
        inferred[key] == value for key, value in text_config.items() if key != "projection_dim"
    )


def shapes(module) -> dict:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def built(kind, config) -> dict:
    with torch.device("meta"):
        return shapes(kind.from_config(config))
