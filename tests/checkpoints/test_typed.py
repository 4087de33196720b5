"""Kinds of a config's values: published configs pass, and whatever passes can be run."""

from __future__ import annotations

import warnings
from contextlib import suppress

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel

from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from zeroconv.backbones.loading.building import build_text_encoder
from zeroconv.backbones.loading.folder import check_schedule
from zeroconv.checkpoints.typed import check_types
from zeroconv.control import ControlNet
from zeroconv.control.files import build_control, diffusers_state
from zeroconv.errors import UserError
from zeroconv.generation import generate

# entries of published configs that an annotation alone would not allow
PUBLISHED = {
    ControlNetModel: {
        "upcast_attention": None,
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "mid_block_scale_factor": 1,
        "num_attention_heads": None,
        "class_embed_type": None,
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
    },
    UNet2DConditionModel: {
        "sample_size": [64, 64],
        "mid_block_only_cross_attention": None,
        "cross_attention_norm": None,
        "dropout": 0.0,
        "only_cross_attention": [True, False],
        "time_cond_proj_dim": None,
        "attention_type": "default",
        "reverse_transformer_layers_per_block": [[1, 2], 3],
    },
    AutoencoderKL: {
        "latents_mean": None,
        "scaling_factor": 0.13025,
        "shift_factor": None,
        "force_upcast": True,
        "sample_size": 1024,
        "latents_std": [0.5, 1, -2.5],
    },
    DDIMScheduler: {
        "trained_betas": None,
        "beta_start": 0.00085,
        "steps_offset": 1,
        "prediction_type": "v_prediction",
        "clip_sample_range": 1,
        "dynamic_thresholding_ratio": 0.995,
    },
}
VALUES = (None, -1, 0, "x", [], [-1, 2], [None], ["x"], {"a": 1}, True, 1.5)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_types_of_published_configs_pass(kind):
    check_types(PUBLISHED[kind], kind, "a config")


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def control(backbone):
    return randomise_(ControlNet.from_backbone(backbone))


KEYS = (
    "attention_head_dim downsample_padding freq_shift mid_block_scale_factor norm_eps "
    "norm_num_groups layers_per_block in_channels flip_sin_to_cos act_fn use_linear_projection "
    "only_cross_attention"
).split()


@pytest.mark.parametrize("key", KEYS)
def test_types_that_pass_can_be_run(backbone, control, key):
    for value in VALUES:
        config = {**control.config, key: value}
        # a UserError is right too; nothing else is
        with suppress(UserError), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            made = build_control(ControlNet, config, diffusers_state(control), "it", torch.float32)
            made(*inputs(backbone))


@pytest.mark.parametrize("value", [None, "x", [49407], {}])
def test_types_of_a_text_encoders_end_token(backbone, value):
    text = backbone.text_encoders[0]
    config = {**text.config.to_dict(), "eos_token_id": value}
    with pytest.raises(UserError, match="eos_token_id is"):
        build_text_encoder(config, text.state_dict(), "it")


SCHEDULE = "timestep_spacing steps_offset trained_betas set_alpha_to_one clip_sample".split()


@pytest.mark.parametrize("key", SCHEDULE)
def test_types_of_a_schedule_that_pass_can_be_run(backbone, monkeypatch, key):
    refused, sound = 0, backbone.scheduler_config

    for value in VALUES:
        try:
            check_schedule({**sound, key: value}, "it")
        except UserError:
            refused += 1
            continue
        monkeypatch.setattr(backbone, "scheduler_config", {**sound, key: value})
        for name in ("ddim", "unipc"):
            generate(backbone, "a", steps=1, height=32, width=32, scheduler=name, output="tensor")
    assert refused >= len(VALUES) // 2
