"""SDXL in one file: the published names, and what diffusers makes of them."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils

from tests.helpers.stable_diffusion import SDXL
from tests.helpers.tiny import tiny_backbone_xl_file
from tests.helpers.tiny_folder import single_file_state
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.infer import infer_text_config, infer_unet_config, infer_vae_config
from zeroconv.checkpoints.stable_diffusion import (
    StableDiffusion,
    bare_text,
    from_single_file,
    to_single_file,
)
from zeroconv.errors import UserError

FIRST, SECOND = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone_xl_file()


@pytest.fixture(scope="module")
def single_file(backbone):
    return single_file_state(backbone)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_sdxl_file_is_what_diffusers_reads(backbone, single_file) -> None:
    unet, vae = backbone.unet, backbone.vae
    theirs = single_file_utils.convert_ldm_unet_checkpoint(dict(single_file), unet.config)
    assert equal(theirs, unet.state_dict())
    assert equal(
        single_file_utils.convert_ldm_vae_checkpoint(single_file, vae.config), vae.state_dict()
    )

    first = bare_text(single_file_utils.convert_ldm_clip_checkpoint(single_file))
    assert equal(first, bare_text(backbone.text_encoders[0].state_dict()))

    encoder = backbone.text_encoders[1]
    second = single_file_utils.convert_open_clip_checkpoint(encoder, single_file, prefix=SECOND)
    expected = encoder.state_dict()
    assert len(expected) > 40
    assert all(torch.equal(second[key], value) for key, value in expected.items())


def test_sdxl_file_there_and_back(backbone, single_file) -> None:
    assert identify(single_file).name == "base"
    parts = from_single_file(single_file)
    assert parts.xl and not parts.open_clip
    assert equal(parts.unet, backbone.unet.state_dict())
    assert equal(parts.vae, backbone.vae.state_dict())
    for ours, encoder in zip((parts.text, parts.text_2), backbone.text_encoders, strict=True):
        assert equal(ours, bare_text(encoder.state_dict()))
    assert equal(to_single_file(parts), single_file)


def test_sdxl_file_keeps_what_nothing_reads_for_the_way_back(single_file) -> None:
    more = {
        SECOND + "logit_scale": torch.tensor(4.5),
        "v_pred": torch.zeros(0),
        "denoiser.sigmas": torch.zeros(1000),
    }
    averages = {"model_ema.decay": torch.zeros(1)}
    assert equal(
        to_single_file(from_single_file({**single_file, **more, **averages})),
        {**single_file, **more},
    )
    with pytest.warns(UserWarning, match=r"2 tensors that no part of the base reads, such as x\.y"):
        from_single_file({**single_file, "x.y": torch.zeros(1), "z": torch.zeros(1)})


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("model.diffusion_model.", "no base"),
        ("first_stage_model.", "no autoencoder; give one with --vae"),
        (FIRST, "no first text encoder"),
        (SECOND, "no second text encoder"),
    ],
)
def test_sdxl_file_without_a_part_names_it(single_file, prefix, sentence) -> None:
    short = {key: value for key, value in single_file.items() if not key.startswith(prefix)}
    with pytest.raises(UserError, match=sentence):
        from_single_file(short, "x.safetensors")
    if prefix == "first_stage_model.":
        assert from_single_file(short, vae=False).vae == {}


def test_sdxl_file_with_a_tensor_missing_or_too_many_is_one_sentence(single_file) -> None:
    for key in (SECOND + "positional_embedding", SECOND + "text_projection"):
        short = {name: value for name, value in single_file.items() if name != key}
        with pytest.raises(UserError, match=f"lacks {key.removeprefix(SECOND)}"):
            from_single_file(short, "x.safetensors")
    more = {**single_file, SECOND + "transformer.resblocks.9.ln_1.weight": torch.zeros(32)}
    with pytest.raises(UserError, match=r"x\.safetensors"):
        from_single_file(more, "x.safetensors")


VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def test_sdxl_file_has_the_published_names_at_full_size() -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**SDXL), AutoencoderKL(**VAE)
        first = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**BIG_G))
    texts = [bare_text(text.state_dict()) for text in (first, second)]
    states = StableDiffusion(
        unet.state_dict(), vae.state_dict(), texts[0], open_clip=False, text_2=texts[1]
    )
    single_file = to_single_file(states)

    # sd_xl_base_1.0.safetensors: 2,515 tensors
    counts = {
        prefix: sum(key.startswith(prefix) for key in single_file)
        for prefix in ("model.diffusion_model.", "first_stage_model.", FIRST, SECOND)
    }
    assert list(counts.values()) == [1680, 248, 197, 390]
    assert len(single_file) == 2515
    shapes = {
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "model.diffusion_model.middle_block.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        "model.diffusion_model.output_blocks.8.0.skip_connection.weight": (320, 640, 1, 1),
        "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        FIRST + "text_model.embeddings.position_ids": (1, 77),
        FIRST + "text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
        SECOND + "transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
        SECOND + "transformer.resblocks.31.mlp.c_fc.weight": (5120, 1280),
        SECOND + "text_projection": (1280, 1280),
        SECOND + "positional_embedding": (77, 1280),
        SECOND + "token_embedding.weight": (49408, 1280),
        SECOND + "ln_final.bias": (1280,),
        SECOND + "logit_scale": (),
    }
    assert {key: tuple(single_file[key].shape) for key in shapes} == shapes

    parts = from_single_file(single_file)
    assert parts.text_2 is not None
    for ours, theirs in (
        (parts.unet, states.unet),
        (parts.vae, states.vae),
        (parts.text, texts[0]),
        (parts.text_2, texts[1]),
    ):
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}

    config = infer_unet_config(parts.unet, 128, 1280)
    expected = {**SDXL, "addition_time_embed_dim": 256}
    assert all(
        config[key] == (list(v) if isinstance(v, tuple) else v) for key, v in expected.items()
    )
    assert infer_vae_config(parts.vae, xl=True)["scaling_factor"] == 0.13025
    big = infer_text_config(parts.text_2, "gelu")
    assert all(big[key] == value for key, value in BIG_G.items())
