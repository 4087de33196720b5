"""The words of --device and --dtype, and what computing in bfloat16 changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.backbones import devices
from zeroconv.backbones.devices import multiplies_bfloat16, pick_device, pick_dtype
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")],
)
def test_auto_takes_cuda_then_mps_then_the_processor(monkeypatch, cuda, mps, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto") == expected


@pytest.mark.parametrize(
    "name", ["", "toaster", "cuda:99", "meta", "cpu:x", "xla", "AUTO", "\udcff", "x" * 5000]
)
def test_a_device_that_is_not_there_is_refused(name) -> None:
    with pytest.raises(UserError, match="no device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("amx", "avx", "expected"),
    [(True, True, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    monkeypatch, amx, avx, expected
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert pick_dtype("auto", "cpu") == expected


def test_auto_dtype_is_float32_where_torch_has_no_answer(monkeypatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert pick_dtype("auto", "cpu") == torch.float32


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_cards_multiply_bfloat16_from_ampere_on(monkeypatch, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert multiplies_bfloat16("cuda:1") is expected
    assert not multiplies_bfloat16("mps")


def test_a_dtype_that_is_none_is_refused() -> None:
    for name in ("", "float64", "half", "fp32", "\udcff"):
        with pytest.raises(UserError, match="no dtype"):
            pick_dtype(name, "cpu")
    with pytest.raises(UserError, match="bfloat16"):
        pick_dtype("float16", "cpu")
    assert pick_dtype("float16", "cuda") == torch.float16
    assert devices.dtype_name(torch.bfloat16) == "bfloat16"


def test_bfloat16_reaches_every_part_and_changes_little() -> None:
    """The latents stay float32 between the steps, so that they are rounded once and not at each."""
    wide = tiny_backbone()
    net = randomise_(ControlNet.from_backbone(wide, condition="canny"), 0.02)
    hint = torch.zeros(3, 64, 64)
    hint[:, 20:40] = 1
    heard = []

    def made() -> np.ndarray:
        heard.clear()
        control = Control(net, hint)
        few = {"steps": 4, "cfg": 2.0, "output": "tensor", "seed": 1}
        note = lambda step, steps, z: heard.append(z.dtype)  # noqa: E731
        return generate(wide, "a", [control], callback=note, **few)[0].numpy()

    exact = made()
    wide.to(dtype=torch.bfloat16)
    net.to(dtype=torch.bfloat16)
    parts = (wide.unet, wide.vae, *wide.text_encoders, net)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.bfloat16}
    rounded = made()
    assert rounded.dtype == np.float32
    assert set(heard) == {torch.float32}
    assert 0 < np.abs(rounded - exact).mean() < 0.02
