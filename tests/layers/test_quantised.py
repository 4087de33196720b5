"""Frozen layers in fewer bits: near their model, exact in their gradients, and only where they may
be.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.tiny import (
    inputs,
    randomise_,
    sees_one_position,
    tiny_backbone,
    tiny_backbone_xl,
)
from zeroconv.control import ControlNet
from zeroconv.layers.quantised import QuantisedLayer, dequantise, quantise_

LAYERS = {
    "linear": (lambda: nn.Linear(24, 40), (3, 7, 24)),
    "no bias": (lambda: nn.Linear(24, 40, bias=False), (3, 24)),
    "3 × 3": (lambda: nn.Conv2d(24, 40, 3, padding=1), (2, 24, 9, 9)),
    "strided": (lambda: nn.Conv2d(24, 40, 3, stride=2, padding=1), (2, 24, 8, 10)),
    "1 × 1": (lambda: nn.Conv2d(24, 40, 1), (2, 24, 5, 5)),
}
ERROR = {"bf16": 2**-8, "fp16": 2**-11, "fp8": 2**-4}  # of a weight, relative to itself


def layer(kind: str) -> nn.Linear | nn.Conv2d:
    torch.manual_seed(0)
    return LAYERS[kind][0]().requires_grad_(False)


@pytest.mark.parametrize("bits", ["bf16", "fp16", "int8", "fp8"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_computes_with_the_weight_it_holds(kind: str, bits) -> None:
    """Output and gradient are those of an ordinary layer with the rounded weight, which is as near
    as bits allow.
    """
    plain, x = layer(kind), torch.randn(LAYERS[kind][1])
    small = QuantisedLayer(plain, bits)
    rounded = dequantise(small.weight, small.scale, torch.float32)
    largest = plain.weight.abs().amax(dim=tuple(range(1, plain.weight.dim())), keepdim=True)
    bound = (
        largest / 254
        if bits == "int8"
        else (plain.weight.abs() * ERROR[bits]).clamp_min(largest * 2**-18)
    )
    assert ((rounded - plain.weight).abs() <= bound * 1.001).all()
    assert not torch.equal(rounded, plain.weight)
    plain.weight.copy_(rounded)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    plain(a).square().sum().backward()
    small(b).square().sum().backward()
    torch.testing.assert_close(small(x), plain(x))
    torch.testing.assert_close(b.grad, a.grad)


@pytest.mark.parametrize("numbers", [64, 2**22])
@pytest.mark.parametrize("bits", ["bf16", "int8", "fp8"])
def test_a_linear_layer_makes_its_quantised_weight_in_parts(
    bits: Any, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor: the same output and gradient as with the whole of it."""
    monkeypatch.setattr("zeroconv.layers.cpu.CAST_NUMBERS", numbers)
    small = QuantisedLayer(nn.Linear(24, 150), bits)
    whole = dequantise(small.weight, small.scale, torch.float32)
    x = torch.randn(2, 5, 24, requires_grad=True)
    y = small(x)
    wanted = nn.functional.linear(x, whole, small.bias)
    torch.testing.assert_close(y, wanted)
    ours, theirs = (torch.autograd.grad(out.square().sum(), x)[0] for out in (y, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_a_channel_of_zeros_stays_zero() -> None:
    plain = layer("3 × 3")
    plain.weight[3] = 0
    for bits in ("int8", "fp8"):
        small = QuantisedLayer(plain, bits)
        assert not dequantise(small.weight, small.scale, torch.float32)[3].any()


def test_quantised_layer_keeps_no_dequantised_weight_for_the_backward_pass() -> None:
    small, kept = QuantisedLayer(layer("3 × 3"), "int8"), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        small(torch.randn(2, 24, 9, 9, requires_grad=True))
    assert {x.data_ptr() for x in kept} == {small.weight.data_ptr(), small.scale.data_ptr()}


@pytest.mark.parametrize("bits", ["int8", "fp8"])
def test_weights_do_not_follow_the_models_dtype(bits) -> None:
    small = QuantisedLayer(layer("3 × 3"), bits)
    before = small.weight.clone(), small.scale.clone()
    model = (
        nn.Sequential(small, nn.GroupNorm(8, 40))
        .to(torch.bfloat16)
        .to(memory_format=torch.channels_last)
    )
    assert model[1].weight.dtype == torch.bfloat16
    assert small.weight.dtype == before[0].dtype and small.weight.is_contiguous(
        memory_format=torch.channels_last
    )
    assert torch.equal(small.weight.float(), before[0].float()) and torch.equal(
        small.scale, before[1]
    )
    assert model(torch.randn(2, 24, 9, 9, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_autocast_decides_the_dtype() -> None:
    small = QuantisedLayer(layer("linear"), "int8")
    x = torch.randn(3, 24, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = small(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize(
    ("bits", "error"), [("bf16", 0.01), ("fp16", 0.002), ("int8", 0.03), ("fp8", 0.12)]
)
def test_quantised_unet_is_near(make, bits, error: float) -> None:
    backbone = make()
    control = randomise_(ControlNet.from_backbone(backbone), 0.3)
    z, hint, t, text = inputs(backbone)

    def run() -> torch.Tensor:
        skips = [
            s + r
            for s, r in zip(backbone.encode(z, t, text), control(z, hint, t, text), strict=True)
        ]
        return backbone.decode(skips, t, text)

    plain, copied = run().detach(), {k: v.clone() for k, v in control.state_dict().items()}
    quantise_(backbone.unet, bits)
    changed = run()
    assert 0 < (changed - plain).norm() / plain.norm() < error
    changed.square().mean().backward()
    assert all(p.grad is not None for p in control.parameters())
    assert all(p.grad.any() or sees_one_position(name) for name, p in control.named_parameters())
    assert all(
        torch.equal(copied[k], v) and v.dtype == torch.float32
        for k, v in control.state_dict().items()
    )
    kinds = {
        name: type(m)
        for name, m in backbone.unet.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    }
    assert kinds and all(
        name.split(".")[0].startswith(("conv_", "time_", "add_")) for name in kinds
    )
