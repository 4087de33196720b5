"""Files that lie: headers, indices and configs changed anywhere give one sentence, never a
traceback or a hang.
"""

from __future__ import annotations

import json
import struct
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import tiny_backbone, tiny_unet
from tests.helpers.tiny_folder import save_backbone
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints import convert, read_state_dict
from zeroconv.checkpoints.lora import read_lora
from zeroconv.control import ControlNet
from zeroconv.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"
SETTINGS = settings(
    max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**18) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("control") / "c"
    ControlNet.from_backbone(tiny_backbone()).save(path)
    return path


def loads_or_tells(load, *args) -> None:
    """Runs it: it works, or there is a UserError of one sentence, in good time."""
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = _message_of(load, *args)
    assert "\n" not in message.strip()
    assert len(message) < 1200
    assert time.monotonic() - start < 20


def _message_of(load, *args) -> str:
    try:
        load(*args)
    except UserError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------- safetensors


def packed(header: object, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def plain_header() -> dict:
    return {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
    }


FIELDS = st.sampled_from(["dtype", "shape", "data_offsets"])
DTYPES = st.sampled_from(
    ["F32", "F64", "BF16", "F8_E4M3", "F4", "F6_E2M3", "C64", "U64", "BOOL", "I8", "X"]
)
LENGTHS = st.none() | st.integers(0, 2**64 - 1)
SHAPES = st.lists(st.integers(-1, 2**63), max_size=4)


@SETTINGS
@given(name=st.sampled_from("ab"), field=FIELDS, value=JSON | DTYPES | SHAPES, lie=LENGTHS)
def test_a_mutated_safetensors_header_is_one_sentence(name, field, value, lie):
    header = plain_header()
    header[name][field] = value
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.safetensors"
        path.write_bytes(packed(header, bytes(32), lie))
        for load in (read_state_dict, ControlNet.load, load_backbone, read_lora):
            loads_or_tells(load, path)


@SETTINGS
@given(data=st.data())
def test_a_safetensors_file_with_flipped_bytes_is_one_sentence(folder, data):
    content = bytearray((folder / WEIGHTS).read_bytes())
    length = struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 6))):
        offset = data.draw(st.integers(0, 8 + length - 1))
        content[offset] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.safetensors"
        path.write_bytes(bytes(content))
        loads_or_tells(ControlNet.load, path)


@SETTINGS
@given(text=st.text(max_size=40) | JSON.map(json.dumps))
def test_a_header_of_nonsense_metadata_is_one_sentence(folder, text):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.safetensors"
        save_file(
            load_file(folder / WEIGHTS),
            path,
            metadata={"zeroconv": text, "lora_adapter_metadata": text},
        )
        loads_or_tells(ControlNet.load, path)
        loads_or_tells(convert, path, Path(scratch) / "out", "diffusers")


# ---------------------------------------------------------------- configs


@SETTINGS
@given(data=st.data())
def test_a_mutated_config_of_a_control_is_one_sentence(folder, data):
    config = json.loads((folder / "config.json").read_text())
    for name in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[name] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "c"
        path.mkdir()
        (path / WEIGHTS).symlink_to(folder / WEIGHTS)  # as the hub's cache has it
        (path / "config.json").write_text(json.dumps(config))
        loads_or_tells(ControlNet.load, path)
        loads_or_tells(convert, path, Path(scratch) / "out.safetensors", "original")


HUGE = {
    "layers_per_block": 10_000_000,
    "transformer_layers_per_block": [1, 1, 1, 10**7],
    "block_out_channels": [16] * 10_000,
    "down_block_types": ["DownBlock2D"] * 100_000,
    "cross_attention_dim": 10**12,
    "attention_head_dim": -(10**9),
    "norm_num_groups": 0,
    "conditioning_channels": 10**10,
    "conditioning_embedding_out_channels": [10**9] * 4,
    "norm_eps": 1e300,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_config_of_huge_numbers_is_refused_at_once(folder, tmp_path, name):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / WEIGHTS).symlink_to(folder / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps({**config, name: HUGE[name]}))
    start = time.monotonic()
    with pytest.raises(UserError):
        ControlNet.load(tmp_path)
    assert time.monotonic() - start < 5


BAD_JSON = {
    "no object": "[]",
    "cut short": '{"a": ',
    "not a number": '{"block_out_channels": NaN}',
    "a long number": '{"a": ' + "1" * 5000 + "}",
    "lists in lists": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "not UTF-8": b"{\xff\xfe}",
    "wrong types": '{"block_out_channels": "wide", "layers_per_block": {}}',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_config_that_is_no_json_is_one_sentence(folder, tmp_path, name):
    content = BAD_JSON[name]
    (tmp_path / WEIGHTS).symlink_to(folder / WEIGHTS)
    (tmp_path / "config.json").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(UserError) as caught:
        ControlNet.load(tmp_path)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- shards

SECRET = "secret.safetensors"
MAPS = {
    "null": None,
    "a list": ["x.safetensors"],
    "empty": {},
    "numbers": {"conv_in.weight": 3},
    "upwards": {"conv_in.weight": f"../{SECRET}"},
    "absolute": {"conv_in.weight": "/etc/hostname"},
    "with a drive": {"conv_in.weight": "C:\\x.safetensors"},
    "a folder": {"conv_in.weight": "."},
    "missing": {"conv_in.weight": "nowhere-00001-of-00002.safetensors"},
    "a name that the shard lacks": {"conv_in.weight": WEIGHTS, "conv_out.weight": WEIGHTS},
}


@pytest.mark.parametrize("name", MAPS)
def test_an_index_that_lies_is_one_sentence(folder, tmp_path, name):
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / SECRET)
    inside = tmp_path / "c"
    inside.mkdir()
    (inside / "config.json").write_bytes((folder / "config.json").read_bytes())
    (inside / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": MAPS[name]}))
    if "lacks" in name:
        save_file({"conv_in.weight": torch.zeros(1)}, inside / WEIGHTS.replace("model", "model-1"))
        table = {key: WEIGHTS.replace("model", "model-1") for key in MAPS[name]}  # type: ignore[union-attr]
        (inside / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": table}))
    with pytest.raises(
        UserError, match=r"weight_map|names the shard|lacks the shard|which .* names"
    ):
        ControlNet.load(inside)


def test_shards_are_read_together(folder, tmp_path):
    state = load_file(folder / WEIGHTS)
    names = sorted(state)
    table = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(names)}
    for part in set(table.values()):
        save_file({name: state[name] for name in names if table[name] == part}, tmp_path / part)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": table}))
    loaded = ControlNet.load(tmp_path).state_dict()
    unsplit = ControlNet.load(folder).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in unsplit.items())


@pytest.mark.parametrize("shared", ["../../elsewhere", "/etc", "", ".", ["a"], {"a": 1}, 3])
def test_a_control_that_shares_with_a_path_is_refused(folder, tmp_path, shared):
    config = json.loads((folder / "config.json").read_text())
    config["zeroconv"]["shared"] = shared
    (tmp_path / WEIGHTS).symlink_to(folder / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps(config))
    if shared:
        with pytest.raises(UserError, match="no name of a folder beside it"):
            ControlNet.load(tmp_path)


# ---------------------------------------------------------------- bases


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "sd"
    save_backbone(path)
    return path


def beside(base: Path, scratch: str, change: str) -> Path:
    """The base again, by links, one of its configs to be written anew."""
    copy = Path(scratch) / "sd"
    for part in base.iterdir():
        (copy / part.name).mkdir(parents=True) if part.is_dir() else None
        for file in part.iterdir() if part.is_dir() else ():
            if f"{part.name}/{file.name}" != change:
                (copy / part.name / file.name).symlink_to(file)
    return copy


CONFIGS = {
    "unet/config.json": None,
    "vae/config.json": None,
    "text_encoder/config.json": None,
    "scheduler/scheduler_config.json": None,
}


@settings(SETTINGS, max_examples=10)
@given(data=st.data())
@pytest.mark.parametrize("change", CONFIGS)
def test_a_mutated_config_of_a_base_is_one_sentence(base, change, data):
    config = json.loads((base / change).read_text())
    for name in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=2)):
        config[name] = data.draw(JSON | st.sampled_from([10**7, [10**7] * 4, -1, 0]))
    with tempfile.TemporaryDirectory() as scratch:
        copy = beside(base, scratch, change)
        (copy / change).write_text(json.dumps(config))
        loads_or_tells(load_backbone, copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_base_with_nan_is_refused_naming_file_and_tensor(base, tmp_path, part):
    file = next(path for path in (base / part).iterdir() if path.suffix == ".safetensors")
    copy = beside(base, str(tmp_path), f"{part}/{file.name}")
    state = load_file(file)
    key = sorted(state)[0]
    state[key].view(-1)[0] = float("nan")
    save_file(state, copy / part / file.name)
    with pytest.raises(UserError, match=f"{part}: tensor .* holds 1 values that are no numbers"):
        load_backbone(copy)


MORE = {5: "depth", 7: "enlarging", 12: "something else"}


@pytest.mark.parametrize("channels", MORE)
def test_a_base_that_reads_more_than_latents_is_one_sentence(zeroconv_describe, tmp_path, channels):
    save_backbone(tmp_path / "sd")
    tiny_unet(in_channels=channels).save_pretrained(tmp_path / "sd" / "unet")
    for load in (load_backbone, zeroconv_describe):
        with pytest.raises(UserError, match=MORE[channels]) as caught:
            load(str(tmp_path / "sd"))
        assert f"reads latents of {channels} channels" in str(caught.value)


@pytest.fixture
def zeroconv_describe():
    from zeroconv.cli.info.report import describe

    return describe
