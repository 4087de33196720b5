from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zeroconv.checkpoints import check_strict, read_state_dict
from zeroconv.checkpoints.identify import refuse_folder
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.errors import UserError

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.float16)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt", ".pt", ".bin"])
@pytest.mark.parametrize("nested", [False, True])
def test_every_kind_of_file(tmp_path, suffix, nested):
    path = tmp_path / f"x{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save({"state_dict": STATE, "epoch": 3} if nested else STATE, path)
    state = read_state_dict(path)
    assert state.keys() == STATE.keys()
    assert all(
        torch.equal(state[key], STATE[key]) and state[key].dtype == STATE[key].dtype
        for key in STATE
    )


class Code:
    def __reduce__(self):
        return (os.mkdir, ("must-never-run",))


def broken(path, kind):
    if kind == "code":
        torch.save({**STATE, "hook": Code()}, path)
    elif kind == "old pickle with code":
        path.write_bytes(pickle.dumps(Code(), protocol=2))
    elif kind == "truncated":
        torch.save(STATE, path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404: not found</html>")
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    elif kind == "a list":
        torch.save([1, 2], path)


KINDS = {
    "code": "holds more than tensors",
    "old pickle with code": "holds more than tensors",
    "truncated": "is damaged",
    "empty": "is an empty file",
    "text": "is an HTML page",
    "no tensors": "holds no tensors",
    "a list": "holds no tensors under names but a list",
}


@pytest.mark.parametrize(("kind", "sentence"), KINDS.items())
def test_a_bad_pickle(tmp_path, monkeypatch, kind, sentence):
    monkeypatch.chdir(tmp_path)
    broken(tmp_path / "x.pth", kind)
    with pytest.raises(UserError, match=sentence) as caught:
        read_state_dict(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    assert "x.pth" in str(caught.value)
    assert not (tmp_path / "must-never-run").exists()


@pytest.mark.parametrize("content", [b"\xff" * 100, b"\x10" + bytes(7) + b"{" + b"x" * 20])
def test_a_bad_safetensors_file(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors is damaged or no safetensors file"):
        read_state_dict(path)


def test_no_file_and_no_weights(tmp_path):
    with pytest.raises(UserError, match="there is no weights file"):
        read_state_dict(tmp_path / "x.pth")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(UserError, match=r"is a text file; zeroconv reads \.bin"):
        read_state_dict(tmp_path / "x.txt")


def test_strictness_names_the_first_few():
    with pytest.raises(UserError, match="here lacks c0, c1, c2 and 7 more and has the unknown b"):
        check_strict({"a": STATE["a"], **{f"c{i}": STATE["a"] for i in range(10)}}, STATE, "here")
    with pytest.raises(UserError, match=r"here: tensor a has shape \[2, 3\], expected \[3, 2\]"):
        check_strict({"a": torch.zeros(3, 2), "b": STATE["b"]}, STATE, "here")
    check_strict(STATE, dict(reversed(STATE.items())), "here")


VARIANTS = [
    (".safetensors", None),
    (".fp16.safetensors", None),
    (".bin", None),
    (".fp16.bin", None),
    ("-{}.safetensors", ".safetensors.index.json"),
    (".fp16-{}.safetensors", ".safetensors.index.fp16.json"),
    ("-{}.fp16.safetensors", ".fp16.safetensors.index.json"),
    ("-{}.bin", ".bin.index.json"),
    (".fp16-{}.bin", ".bin.index.fp16.json"),
]


@pytest.mark.parametrize("name", ["diffusion_pytorch_model", "model", "pytorch_model"])
@pytest.mark.parametrize(("file", "index"), VARIANTS)
def test_read_weights_reads_every_variant_of_a_component(tmp_path, name, file, index):
    """As a hub's snapshot has it: links to files without a suffix."""
    state = {"a.weight": torch.randn(2, 3).half(), "b.weight": torch.randn(3).half()}
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "1" / "unet"
    blobs.mkdir()
    folder.mkdir(parents=True)
    parts = [state] if index is None else [{key: value} for key, value in state.items()]

    table = {}
    for number, part in enumerate(parts, 1):
        path = folder / f"{name}{file.format(f'0000{number}-of-0000{len(parts)}')}"
        blob = blobs / str(number)
        save_file(part, blob) if path.suffix == ".safetensors" else torch.save(part, blob)
        path.symlink_to(blob)
        table |= dict.fromkeys(part, path.name)
    if index is not None:
        (folder / f"{name}{index}").write_text(json.dumps({"metadata": {}, "weight_map": table}))

    read = read_weights(folder)
    assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)


def test_read_weights_takes_full_precision_before_float16(tmp_path):
    save_file({"a": torch.ones(1).half()}, tmp_path / "model.fp16.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path)["a"].dtype == torch.float32


def test_a_cache_of_the_hub_names_the_copy_in_it(tmp_path):
    copy = tmp_path / "models--a--b" / "snapshots" / "0123"
    copy.mkdir(parents=True)
    message = str(refuse_folder(tmp_path / "models--a--b", "ControlNet"))
    assert f"give the copy in it, {copy}" in message


@pytest.mark.parametrize("condition", [5, ["canny"], {"name": "canny"}, True])
def test_read_config_refuses_a_condition_that_is_no_name(tmp_path: Path, condition: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"zeroconv": {"condition": condition}}))
    with pytest.raises(UserError, match="not a name such as canny"):
        read_config(tmp_path)
