"""AdamW with moments in bytes: near the exact one, exact to resume, and right with weights in two
halves.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from zeroconv.optim import adamw8bit
from zeroconv.optim.adamw8bit import AdamW8bit, can_compile, recover_lows
from zeroconv.optim.ema import Ema
from zeroconv.optim.split_weights import LEAST, join, narrow_, narrow_all_, split

TARGET = torch.linspace(-1, 1, 64 * 96).view(64, 96)


def problem() -> nn.ParameterList:
    torch.manual_seed(0)
    return nn.ParameterList([torch.randn(64, 96), torch.randn(10)])


def train(optimizer, parameters, steps: int, first: int = 0) -> list[Tensor]:
    """Least squares on noisy gradients, that are a function of the step."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter, target in zip(parameters, (TARGET, torch.ones(10)), strict=True):
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.grad = (parameter.detach().float() - target + noise).to(parameter.dtype)
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def test_it_goes_where_adamw_goes() -> None:
    ends = []
    for kind in (torch.optim.AdamW, AdamW8bit):
        parameters = problem()
        start = [p.detach().clone() for p in parameters]
        options = {"compiled": False} if kind is AdamW8bit else {}
        ends.append(train(kind(parameters, lr=1e-2, weight_decay=0.01, **options), parameters, 150))
    for before, exact, result in zip(start, *ends, strict=True):
        moved, apart = (exact - before).norm(), (exact - result).norm()
        assert apart < 0.05 * moved  # a byte's noise, no drift: the difference has no direction
        assert abs(((result - exact) * (exact - before)).sum()) < 0.01 * moved**2


def test_one_step_is_adamw_s() -> None:
    """The first step knows no bytes: the moments are what the gradient makes them."""
    a, b = problem(), problem()
    train(torch.optim.AdamW(a, lr=1e-2, weight_decay=0.1), a, 1)
    train(AdamW8bit(b, lr=1e-2, weight_decay=0.1, compiled=False), b, 1)
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="no C++ compiler")
def test_compiled_and_plain_agree() -> None:
    a, b = problem(), problem()
    left = train(AdamW8bit(a, lr=1e-2, compiled=False), a, 20)
    right = train(AdamW8bit(b, lr=1e-2, compiled=True), b, 20)
    assert all(torch.allclose(x, y, atol=2e-3) for x, y in zip(left, right, strict=True))


def test_it_resumes_bit_for_bit() -> None:
    straight = problem()
    through = train(AdamW8bit(straight, lr=1e-2, compiled=False), straight, 12)
    first = problem()
    optimizer = AdamW8bit(first, lr=1e-2, compiled=False)
    train(optimizer, first, 5)
    state, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in first]
    second = nn.ParameterList(weights)
    again = AdamW8bit(second, lr=1.0, compiled=False)
    again.load_state_dict(state)
    assert all(
        torch.equal(x, y) for x, y in zip(through, train(again, second, 7, first=5), strict=True)
    )


def test_a_state_saved_with_bytes_in_order_goes_on() -> None:
    """As the first version kept it: (blocks, 256) bytes, the mean's with a sign."""
    one = problem()
    optimizer = AdamW8bit(one, lr=1e-2, compiled=False)
    train(optimizer, one, 5)
    state = copy.deepcopy(optimizer.state_dict())
    other = nn.ParameterList([p.detach().clone() for p in one])
    for name, dtype in (("mean", torch.int8), ("square", torch.uint8)):
        words = state["state"][0].pop(f"{name}_words")
        in_order = words.view(torch.uint8).view(-1, 64, 4).transpose(1, 2).reshape(-1, 256)
        state["state"][0][f"{name}_codes"] = in_order.view(dtype)
    assert (state["state"][0]["mean_codes"] < 0).any() and (
        state["state"][0]["square_codes"] > 127
    ).any()
    again = AdamW8bit(other, lr=1e-2, compiled=False)
    again.load_state_dict(state)
    assert "mean_codes" not in again.state[other[0]]
    ends = [train(opt, p, 3, first=5) for opt, p in ((optimizer, one), (again, other))]
    assert all(torch.equal(x, y) for x, y in zip(*ends, strict=True))


def test_how_much_is_updated_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graphics card takes larger pieces than a core's cache holds; 24 blocks here, the last piece
    a part.
    """
    ends = []
    for piece in (1, 5, adamw8bit.LARGE_PIECE):
        monkeypatch.setattr(adamw8bit, "PIECE", piece)
        parameters = problem()
        ends.append(train(AdamW8bit(parameters, lr=1e-2, compiled=False), parameters, 5))
    for other in ends[1:]:
        assert all(torch.equal(x, y) for x, y in zip(ends[0], other, strict=True))


def test_moments_take_two_bytes_a_number() -> None:
    parameter = nn.Parameter(torch.zeros(1024, 256))
    optimizer = AdamW8bit([parameter], compiled=False)
    held = sum(
        v.numel() * v.element_size()
        for v in optimizer.state[parameter].values()
        if torch.is_tensor(v)
    )
    assert held / parameter.numel() < 2.05


def test_clipping_happens_in_the_update() -> None:
    ends = []
    for clip in (False, True):
        parameters = problem()
        # ε that lets the size of gradients matter
        optimizer = AdamW8bit(parameters, lr=1e-2, eps=1.0, compiled=False)
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 3.0)
        norm = float(torch.stack([p.grad.norm() for p in parameters]).norm())
        if clip:
            assert optimizer.clip(0.5) == pytest.approx(norm)
        else:
            for parameter in parameters:
                parameter.grad *= 0.5 / (norm + 1e-6)
        optimizer.step()
        ends.append([p.detach().clone() for p in parameters])
    assert all(torch.allclose(x, y, atol=1e-7) for x, y in zip(*ends, strict=True))


def test_halves_hold_what_a_bfloat16_cannot() -> None:
    weight = torch.randn(1000) * torch.logspace(-4, 1, 1000)
    high, low = split(weight)
    assert high.dtype == torch.bfloat16 and low.dtype == torch.float16
    assert (
        (join(high, low) - weight).abs() <= torch.clamp(weight.abs() * 2**-20, min=3.1e-8)
    ).all()


def test_small_updates_add_up_in_two_halves() -> None:
    """A thousand steps, each far below what the bfloat16 weight resolves."""
    layer = nn.Linear(256, 256)
    layer.weight.data.fill_(1.0)
    lows = narrow_(layer)
    assert (
        set(lows) == {layer.weight}
        and layer.bias.dtype == torch.float32
        and layer.weight.numel() >= LEAST
    )
    optimizer = AdamW8bit([layer.weight], lr=1e-5, weight_decay=0.0, lows=lows, compiled=False)
    for _ in range(100):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
    assert layer.weight.dtype == torch.bfloat16
    assert torch.allclose(
        optimizer.master(layer.weight), torch.full((256, 256), 1 - 1e-3), atol=2e-5
    )


def test_the_average_is_of_both_halves() -> None:
    layer = nn.Linear(256, 256)
    exact = layer.weight.detach().clone()
    optimizer = AdamW8bit([layer.weight], lows=narrow_(layer), compiled=False)
    for decay in (0.9, 0.0):
        ema = Ema([layer.weight], decay, optimizer.master)
        ema.update()
        with ema.swapped():
            assert layer.weight.dtype == torch.float32
            assert torch.allclose(layer.weight, exact, atol=1e-7)
        assert layer.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("was_narrow", [True, False])
def test_a_state_goes_over_to_a_device_that_keeps_weights_otherwise(was_narrow: bool) -> None:
    """In two halves on a card, small ones in one on a processor: not a bit of float16's is lost on
    the way.
    """
    torch.manual_seed(0)
    sides = []
    for narrow in (was_narrow, not was_narrow):
        layer = nn.Conv2d(16, 48, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        lows = narrow_all_(layer) if narrow else {}
        sides.append((layer, AdamW8bit(layer.parameters(), lr=1e-2, lows=lows, compiled=False)))
    (layer, optimizer), (other, after) = sides
    for parameter in layer.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    saved = {name: value.clone() for name, value in layer.state_dict().items()}
    other.load_state_dict(saved)
    after.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    recover_lows(after, [(other, saved)])
    for weight, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        assert (optimizer.master(weight) - after.master(theirs)).abs().max() < 1e-6
        assert (weight.float() - optimizer.master(weight)).abs().max() > 1e-5 or not was_narrow
