"""Layers that are fast on a CPU compute what torch's compute, forwards and backwards, and keep
less.
"""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from zeroconv.layers import allocator
from zeroconv.layers.cpu import (
    CpuConv2d,
    CpuGEGLU,
    CpuLinear,
    fold,
    keep_gradients_,
    patches,
    use_cpu_layers_,
)


def both(layer: nn.Module, x: Tensor, frozen: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients (of input and parameters) of a layer, and of the same one made fast."""
    gradients = []
    for fast in (False, True):
        one, inputs = copy.deepcopy(layer).requires_grad_(not frozen), x.clone().requires_grad_()
        if fast:
            use_cpu_layers_(nn.ModuleList([one]))
            assert isinstance(one, CpuLinear | CpuConv2d | CpuGEGLU)
        y = one(inputs)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        gradients.append(
            [y.detach(), inputs.grad, *(p.grad for p in one.parameters() if p.grad is not None)]
        )
    assert (
        len(gradients[0])
        == len(gradients[1])
        == 2 + (0 if frozen else len(list(layer.parameters())))
    )
    return gradients[0], gradients[1]


def alike(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(
        torch.allclose(x, y, rtol=1e-4, atol=1e-4 * float(x.abs().max()))
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("side", [4, 24])  # as patches and as torch's convolution
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0), (4, 2, 1), (3, 1, 0)]
)
def test_a_convolution(kernel: int, stride: int, padding: int, side: int, frozen: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, kernel, stride, padding).to(memory_format=torch.channels_last)
    x = torch.randn(2, 5, side, side + 2).contiguous(memory_format=torch.channels_last)
    assert alike(*both(layer, x, frozen))


@pytest.mark.parametrize("most", [0, 2**25])  # the weight's gradient by oneDNN, and as a product
def test_a_weights_gradient_either_way(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroconv.layers.cpu.PATCH_BYTES", most)
    layer = nn.Conv2d(5, 7, 3, 2, 1).to(memory_format=torch.channels_last)
    assert alike(
        *both(layer, torch.randn(2, 5, 48, 40).contiguous(memory_format=torch.channels_last))
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [3, 200])  # thin and not
def test_a_linear_layer(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    assert alike(*both(nn.Linear(6, 9, bias=bias), torch.randn(2, rows, 6)))


def test_a_gated_unit() -> None:
    torch.manual_seed(0)
    assert alike(*both(GEGLU(6, 8), torch.randn(2, 5, 6)))


def test_bfloat16_weights_beside_float32_activations() -> None:
    """Cast a part at a time, and the weights' gradients come as bfloat16."""
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(70, 90), torch.randn(4, 70)),
        (nn.Conv2d(4, 6, 3, 1, 1), torch.randn(1, 4, 8, 8)),
    ):
        layer.weight.data = layer.weight.data.bfloat16()
        wide = copy.deepcopy(layer).float()
        use_cpu_layers_(nn.ModuleList([layer]))
        for one in (layer, wide):
            one(x).square().sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.bfloat16
        assert torch.allclose(layer(x), wide(x), atol=1e-5)
        assert torch.allclose(layer.weight.grad.float(), wide.weight.grad, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_gradient_has_the_same_memory_at_every_step(
    dtype: torch.dtype, monkeypatch
) -> None:
    monkeypatch.setattr(
        allocator, "MAPPED", 4 * 6 * 8 * torch.empty((), dtype=dtype).element_size()
    )
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Conv2d(8, 6, 3, 1, 1), nn.Linear(32, 6), nn.Linear(4, 6)]).to(dtype)
    layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = copy.deepcopy(layers)
    use_cpu_layers_(layers)
    use_cpu_layers_(plain)
    keep_gradients_(layers)
    assert [hasattr(layer.weight, "kept_gradient") for layer in layers] == [True, True, False]
    assert not any(hasattr(layer.weight, "kept_gradient") for layer in plain)
    places: list[list[int]] = []
    for batches in (1, 3, 1):  # of a step: gradients are added up
        for _ in range(batches):
            inputs = [torch.randn(2, 8, 4, 4), torch.randn(5, 32), torch.randn(5, 4)]
            for ours, theirs, x in zip(layers, plain, inputs, strict=True):
                for layer in (ours, theirs):
                    layer(x).square().sum().backward()
        for ours, theirs in zip(layers, plain, strict=True):
            assert torch.equal(ours.weight.grad, theirs.weight.grad)
            assert ours.weight.grad.stride() == theirs.weight.grad.stride()
        places.append([layer.weight.grad.data_ptr() for layer in layers[:2]])
        layers.zero_grad()
        plain.zero_grad()
    assert (
        places[0]
        == places[1]
        == places[2]
        == [layer.weight.kept_gradient[0].data_ptr() for layer in layers[:2]]
    )


def test_a_layer_that_is_called_twice_adds_its_gradients_up(monkeypatch) -> None:
    monkeypatch.setattr(allocator, "MAPPED", 4)
    layers = nn.ModuleList([nn.Linear(6, 6), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)])
    plain = copy.deepcopy(layers)
    use_cpu_layers_(layers)
    keep_gradients_(layers)
    assert [hasattr(layer.weight, "kept_gradient") for layer in layers] == [True, True, False]
    for _ in range(2):
        for ours, theirs, x in zip(
            layers, plain, (torch.randn(3, 6), *torch.randn(2, 1, 4, 5, 5)), strict=True
        ):
            for layer in (ours, theirs):
                layer.zero_grad()
                layer(layer(x)).square().sum().backward()
            assert torch.allclose(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-5)


def test_a_frozen_layer_keeps_no_input() -> None:
    kept: list[Tensor] = []
    layer = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)).requires_grad_(False)
    use_cpu_layers_(layer)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(1, 4, 32, 32, requires_grad=True)).sum().backward()
    weights = {p.data_ptr() for p in layer.parameters()}
    assert kept and all(t.data_ptr() in weights for t in kept)


@pytest.mark.parametrize("stride", [1, 2])
def test_fold_is_the_transpose_of_patches(stride: int) -> None:
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    seen = patches(x, 3, stride, 1)
    other = torch.randn_like(seen)
    assert torch.isclose((seen * other).sum(), (x * fold(other, x.shape, 3, stride, 1)).sum())


def test_other_layers_and_names_stay() -> None:
    net = nn.ModuleDict(
        {
            "a": nn.Conv2d(4, 4, 3, groups=2),
            "b": nn.Conv2d(4, 4, 3, padding="same"),
            "c": nn.LayerNorm(4),
        }
    )
    net["d"] = nn.Linear(4, 4)
    before = list(net.state_dict())
    use_cpu_layers_(net)
    assert [type(m) for m in net.values()] == [nn.Conv2d, nn.Conv2d, nn.LayerNorm, CpuLinear]
    assert list(net.state_dict()) == before
