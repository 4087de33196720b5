"""Kernels for graphics cards: on a card where there is one, else by Triton's interpreter (make
kernel-test).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.layers.cuda import CardGroupNorm, CardResnetBlock2D, use_card_layers_
from zeroconv.optim.adamw8bit import AdamW8bit
from zeroconv.optim.split_weights import narrow_all_, split
from zeroconv.training.execution.memory import activations
from zeroconv.training.objective import ControlledLoss

pytestmark = pytest.mark.kernels
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

WEIGHTS = ((16, 48, 3, 3), (16, 256), (77,), (4096,))


def optimiser(narrow: bool) -> tuple[list[nn.Parameter], AdamW8bit]:
    generator = torch.Generator().manual_seed(0)
    parameters, lows = [], {}
    for shape in WEIGHTS:
        weight = torch.randn(shape, generator=generator).to(DEVICE)
        if len(shape) == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        high, low = split(weight)
        parameters.append(nn.Parameter(high if narrow else weight))
        if narrow:
            lows[parameters[-1]] = low
    return parameters, AdamW8bit(parameters, lr=1e-2, weight_decay=0.1, lows=lows, compiled=False)


def by_kernels(narrow: bool) -> tuple[list[nn.Parameter], AdamW8bit]:
    parameters, fused = optimiser(narrow)
    fused.at_once = True
    return parameters, fused


def give_gradients(step: int, *sides: list[nn.Parameter]) -> None:
    for number, parameters in enumerate(zip(*sides, strict=True)):
        generator = torch.Generator().manual_seed(100 * step + number)
        grad = 0.02 + 0.1 * torch.randn(parameters[0].shape, generator=generator)
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter).copy_(grad)


@pytest.mark.parametrize("narrow", [False, True])
def test_adamw8bit_in_one_kernel_goes_where_the_plain_one_goes(narrow: bool) -> None:
    (a, plain), (b, kernels) = optimiser(narrow), by_kernels(narrow)
    start = [plain.master(p).clone() for p in a]
    for step in range(4):
        give_gradients(step, a, b)
        assert kernels.clip(1.0) == pytest.approx(plain.clip(1.0), rel=1e-5)
        plain.step()
        kernels.step()
        pairs = [(plain.master(p), kernels.master(q)) for p, q in zip(a, b, strict=True)]
        if step == 0:  # bytes come in with the second step
            assert all(torch.allclose(x, y, atol=1e-5 if narrow else 1e-6) for x, y in pairs)
    for before, (x, y) in zip(start, pairs, strict=True):
        assert (x - y).norm() < 0.05 * (x - before).norm()
    for p, q in zip(a, b, strict=True):
        for name in {"mean_scales", "deviation_scales", "mean", "square"} & set(plain.state[p]):
            assert torch.allclose(
                plain.state[p][name], kernels.state[q][name], rtol=0.05, atol=1e-5
            ), name


def test_the_kernel_s_rounding_is_a_function_of_the_step() -> None:
    """Gone on with from a saved state, it is the run that never stopped."""
    straight, cut = by_kernels(True), by_kernels(True)
    for step in range(3):
        give_gradients(step, straight[0], cut[0])
        straight[1].step()
        if step < 2:
            cut[1].step()
    parameters, resumed = by_kernels(True)
    for parameter, saved in zip(parameters, cut[0], strict=True):
        parameter.data.copy_(saved)
    resumed.load_state_dict(cut[1].state_dict())
    give_gradients(2, parameters)
    resumed.step()
    for x, y in zip(straight[0], parameters, strict=True):
        assert torch.equal(straight[1].master(x), resumed.master(y))


def test_a_gradient_in_another_order_of_memory_is_read_right() -> None:
    (a, plain), (b, kernels) = optimiser(False), by_kernels(False)
    give_gradients(0, a, b)
    b[0].grad = b[0].grad.contiguous()  # type: ignore[union-attr]
    assert kernels.clip(1e9) == pytest.approx(plain.clip(1e9), rel=1e-5)
    plain.step()
    kernels.step()
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shape", [(2, 96, 9, 10), (1, 64, 8, 8)])
def test_group_norm_is_torch_s(shape: tuple[int, ...], silu: bool) -> None:
    from zeroconv.layers.group_norm_cuda import GroupNormSiLU

    torch.manual_seed(0)
    x = (2 * torch.randn(shape) + 0.7).to(DEVICE).requires_grad_()
    weight, bias = (torch.randn(shape[1]).to(DEVICE).requires_grad_() for _ in range(2))
    dy = torch.randn(shape).to(DEVICE)
    y = GroupNormSiLU.apply(x, weight, bias, 32, 1e-5, silu)
    y.backward(dy)
    exact = [part.detach().double().requires_grad_() for part in (x, weight, bias)]
    wanted = nn.functional.group_norm(exact[0], 32, *exact[1:], 1e-5)
    wanted = nn.functional.silu(wanted) if silu else wanted
    wanted.backward(dy.double())
    for result, right in (
        (y, wanted),
        *((p.grad, e.grad) for p, e in zip((x, weight, bias), exact, strict=True)),
    ):
        assert (result.double() - right).norm() < 1e-5 * right.norm()


def test_a_step_on_a_card_s_layers_is_the_same_step() -> None:
    """Loss and gradients of a whole control, float32, and the state dicts stay."""
    sides: list[tuple[Tensor, dict[str, Any]]] = []
    for swapped in (False, True):
        torch.manual_seed(0)
        backbone = tiny_backbone()
        control: Any = randomise_(ControlNet.from_backbone(backbone))
        names = list(control.state_dict())
        backbone.to(DEVICE)
        control.to(DEVICE).train()
        if swapped:
            use_card_layers_(backbone.unet, control)
            kinds = {type(m) for m in control.modules()}
            assert {CardGroupNorm, CardResnetBlock2D} <= kinds
        assert list(control.state_dict()) == names
        z, hint, _, text = inputs(backbone, 2)
        t = torch.tensor([100, 700], device=DEVICE)
        loss = ControlledLoss(backbone, control)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        hints = (hint * 255).byte().to(DEVICE)
        error = loss.errors(
            z.to(DEVICE), noise, t, hints, text.to(DEVICE), dtype=torch.float32
        ).mean()
        error.backward()
        sides.append(
            (
                error.detach(),
                {n: p.grad for n, p in control.named_parameters() if p.grad is not None},
            )
        )
    (before, old), (after, new) = sides
    assert torch.allclose(before, after, rtol=1e-5)
    largest = max(grad.abs().max() for grad in old.values())
    assert old.keys() == new.keys() and all(
        (old[n] - new[n]).abs().max() < 1e-4 * largest for n in old
    )


def test_all_weights_in_two_halves_and_no_autocast() -> None:
    """In bfloat16 throughout the loss is the float32 one to a bfloat16's precision."""
    backbone = tiny_backbone()
    control: Any = randomise_(ControlNet.from_backbone(backbone))
    z, hint, _, text = inputs(backbone, 2)
    batch = (z, torch.randn(z.shape), torch.tensor([100, 700]), (hint * 255).byte(), text)
    loss = ControlledLoss(backbone, control, torch.bfloat16)
    exact = ControlledLoss(backbone, control).errors(*batch).mean()
    lows = {**narrow_all_(backbone.unet), **narrow_all_(control)}
    assert set(lows) == {p for p in control.parameters() if p.requires_grad}
    value = loss.errors(*batch, dtype=torch.bfloat16).mean()
    value.backward()
    assert value.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(p.grad is None or p.grad.dtype == torch.bfloat16 for p in control.parameters())


def test_memory_is_measured_with_a_card_s_layers() -> None:
    """On shapes without memory, of which a kernel would read."""
    backbone = tiny_backbone()
    control: Any = randomise_(ControlNet.from_backbone(backbone))
    narrow_all_(backbone.unet)
    narrow_all_(control)
    use_card_layers_(backbone.unet, control)
    loss = ControlledLoss(backbone, control, torch.bfloat16)
    loss.weights_dtype = torch.bfloat16
    _, _, _, text = inputs(backbone, 2)
    assert activations(loss, 2, (8, 8), text).peak([]) > 0
