"""Bases in one file and LoRAs of every kind with tensors changed anywhere: one sentence, never a
traceback.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.helpers.tiny import tiny_backbone, tiny_backbone_xl_file, tiny_unet
from tests.helpers.tiny_folder import single_file_state
from zeroconv.checkpoints.lora import merge, read_lora
from zeroconv.cli.info.files import describe_base_file, describe_lora
from zeroconv.errors import UserError

SETTINGS = settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 16, 32, 48]), max_size=5)
DTYPES = st.sampled_from(
    [torch.float32, torch.float16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.uint8]
)
KINDS = st.sampled_from(["drop", "reshape", "rename", "prefix"])


@pytest.fixture(scope="module")
def wholes() -> dict[str, dict[str, torch.Tensor]]:
    return {
        "sd": single_file_state(tiny_backbone()),
        "sd2": single_file_state(tiny_backbone(), open_clip=True),
        "xl": single_file_state(tiny_backbone_xl_file()),
    }


def message_of(call, *args) -> str:
    """The sentence of a UserError; empty where it works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = _sentence(call, *args)
    assert "\n" not in words.strip() and len(words) < 1200
    return words


def _sentence(call, *args) -> str:
    try:
        call(*args)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.slow
@SETTINGS
@given(data=st.data(), family=st.sampled_from(["sd", "sd2", "xl"]), kind=KINDS)
def test_base_file_with_tensors_changed_is_one_sentence(wholes, data, family, kind) -> None:
    state = dict(wholes[family])
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(state)))
        value = state.pop(key)
        if kind == "reshape":
            state[key] = torch.zeros(data.draw(SHAPES)).to(data.draw(DTYPES))
        elif kind == "rename":
            state[key.replace(data.draw(st.sampled_from(["0", "1", "weight", "."])), "9", 1)] = (
                value
            )
        elif kind == "prefix":
            state[f"{data.draw(st.sampled_from(['x.', 'model.', 'unet.']))}{key}"] = value
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.safetensors"
        save_file({key: value.clone() for key, value in state.items()}, path)
        words = message_of(describe_base_file, path)
        assert not words or str(path) in words


HEADERS = (
    "[]",
    "{",
    '{"unet": 3}',
    '{"unet": {"block_out_channels": [1]}}',
    '{"unet": {"in_channels": "x", "sample_size": -4}}',
    '{"unet": {"norm_num_groups": 0}}',
    '{"scheduler": {"prediction_type": "sample"}}',
    '{"scheduler": {"num_train_timesteps": -1}}',
    '{"text_encoder": {"eos_token_id": []}}',
    '{"text_encoder_2": {"num_hidden_layers": 10000000000}}',
    '{"vae": {"latent_channels": 0}}',
    '{"unet": {"sample_size": [1, 2]}}',
)


@pytest.mark.parametrize("header", HEADERS)
def test_base_file_with_a_nonsense_header_is_one_sentence(wholes, tmp_path, header) -> None:
    path = tmp_path / "x.safetensors"
    save_file(wholes["xl"], path, metadata={"zeroconv": header})
    words = message_of(describe_base_file, path)
    assert str(path) in words or json.loads(header) == {"unet": {"sample_size": [1, 2]}}


ROLES = (
    "lora_up.weight lora_down.weight lora_mid.weight hada_w1_a hada_w1_b hada_w2_a hada_w2_b "
    "hada_t1 hada_t2 lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a lokr_w2_b lokr_t2 dora_scale "
    "lora_magnitude_vector alpha scalar diff diff_b w_norm b_norm"
).split()
SETS = st.sampled_from(
    [
        ROLES[:2],
        ROLES[:3],
        ROLES[3:7],
        ROLES[3:9],
        ["lokr_w1", "lokr_w2"],
        ["lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"],
        ["lokr_w1", "lokr_t2", "lokr_w2_a", "lokr_w2_b"],
        ["diff", "diff_b"],
    ]
)
LINEAR, CONV = "mid_block_attentions_0_proj_in", "down_blocks_1_resnets_0_conv1"


@pytest.mark.slow
@settings(SETTINGS, max_examples=60)
@given(data=st.data(), roles=SETS, more=st.lists(st.sampled_from(ROLES), max_size=2))
def test_lora_of_any_kind_and_shapes_is_one_sentence(unet, data, roles, more) -> None:
    module = data.draw(st.sampled_from([LINEAR, CONV]))
    state = {
        f"lora_unet_{module}.{role}": torch.ones(data.draw(SHAPES)).to(data.draw(DTYPES))
        for role in dict.fromkeys([*roles, *more])
    }
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.safetensors"
        save_file(state, path)
        message_of(describe_lora, path)
        message_of(lambda: merge(unet, read_lora(path), "unet"))


@pytest.fixture(scope="module")
def unet() -> dict[str, torch.Tensor]:
    return tiny_unet().state_dict()
