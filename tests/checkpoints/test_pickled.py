"""Checkpoints of trainers: dicts in dicts, and tensors that are no weights."""

from __future__ import annotations

import pytest
import torch

from zeroconv.checkpoints import read_state_dict
from zeroconv.checkpoints.pickled import WRAPPERS
from zeroconv.errors import UserError

T = torch.arange(3.0)


def read(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    return read_state_dict(tmp_path / "x.pth")


def sentence(tmp_path, content) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "x.pth") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_are_taken_out_of_a_trainers_dicts(tmp_path, wrapper):
    assert torch.equal(
        read(tmp_path, {wrapper: {"a": T}, "epoch": 3, "optimizer": {"state": {0: T}}})["a"], T
    )
    assert torch.equal(
        read(tmp_path, {"state_dict": {wrapper: {"a": torch.nn.Parameter(T)}}})["a"], T
    )


def test_a_tensor_called_like_a_wrapper_stays(tmp_path):
    assert list(read(tmp_path, {"net": T, "model": T})) == ["net", "model"]


def test_averaged_weights_that_are_left_out_are_noted(tmp_path):
    with pytest.warns(UserWarning, match="averaged ones under 'state_dict_ema'"):
        read(tmp_path, {"state_dict": {"a": T}, "state_dict_ema": {"a": T + 1}})


NONE_OF_NAMES = {
    "null": (None, "nothing"),
    "a state_dict of null": ({"state_dict": None}, "nothing"),
    "a list": ([T], "a list"),
    "a tensor": (T, "a Tensor"),
    "a list in a state_dict": ({"state_dict": [T]}, "holds no tensors"),
    "numbers for names": ({0: T, 1: T}, "no text"),
    "pairs for names": ({("a", 1): T}, "no text"),
    "bytes for names": ({"state_dict": {b"a": T}}, "no text"),
    "no tensors": ({"epoch": 3}, "holds no tensors"),
    "an empty dict": ({}, "holds no tensors"),
}


@pytest.mark.parametrize("name", NONE_OF_NAMES)
def test_what_names_no_tensors_is_one_sentence(tmp_path, name):
    content, words = NONE_OF_NAMES[name]
    assert words in sentence(tmp_path, content)


UNUSABLE = {
    "sparse": lambda: T.to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "no data": lambda: T.to("meta"),
    "complex": lambda: torch.zeros(2, dtype=torch.complex64),
    "quantised": lambda: torch.quantize_per_tensor(T, 1.0, 0, torch.qint8),
    "repeated": lambda: torch.zeros(1).expand(10**9),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_tensor_that_no_layer_can_use_is_named(tmp_path, name):
    message = sentence(tmp_path, {"good": T, "bad": UNUSABLE[name]()})
    assert name == "repeated" or "bad" in message
    assert {"csr": "sparse"}.get(name, name) in message


def test_tensors_that_share_memory_are_no_bomb(tmp_path):
    assert len(read(tmp_path, {f"a{i}": T for i in range(50)})) == 50
    assert read(tmp_path, {"a": torch.rand(2, 3).t()})["a"].shape == (3, 2)
