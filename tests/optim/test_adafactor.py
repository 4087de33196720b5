"""Adafactor: torch's own where the two are the same, and small where torch's is not."""

from __future__ import annotations

import torch
from torch import nn

from tests.helpers.stable_diffusion import SD15, meta_backbone
from zeroconv.control import ControlNet
from zeroconv.optim.adafactor import Adafactor


def test_on_matrices_and_vectors_it_is_torchs() -> None:
    """With torch's relative steps and cautious ε's taken out, on weights smaller than 1."""
    torch.manual_seed(0)
    ours = [nn.Parameter(0.1 * torch.randn(12, 7)), nn.Parameter(0.1 * torch.randn(9))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizer = Adafactor(ours, lr=1e-3, weight_decay=0.1)
    # ε₁ enters torch's as a floor; ε₂ = 1 makes max(ε₂, size of the weight) a constant
    other = torch.optim.Adafactor(
        theirs, lr=1e-3, weight_decay=0.1, eps=(1e-12, 1.0), beta2_decay=-0.8
    )
    for step in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = (1 + step) * torch.randn(a.shape)
            b.grad = a.grad.clone()
        optimizer.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_filters_are_matrices() -> None:
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    matrix = nn.Parameter(filters.detach().flatten(1).clone())
    a, b = Adafactor([filters], lr=0.1), Adafactor([matrix], lr=0.1)
    for _ in range(3):
        filters.grad = torch.randn(6, 4, 3, 3)
        matrix.grad = filters.grad.flatten(1).clone()
        a.step()
        b.step()
    assert torch.equal(filters.flatten(1), matrix)
    assert (
        sum(value.numel() for value in a.state[filters].values() if isinstance(value, torch.Tensor))
        == 6 + 4 * 3 * 3
    )


def test_no_gradient_no_step_and_no_nan() -> None:
    for shape in ((4, 3), (4,)):
        weight = nn.Parameter(torch.randn(shape))
        before, optimizer = weight.detach().clone(), Adafactor([weight], lr=0.1)
        weight.grad = torch.zeros(shape)
        optimizer.step()
        assert torch.equal(weight, before)
        weight.grad = torch.full(shape, 1e-9)
        optimizer.step()
        assert weight.isfinite().all() and not torch.equal(weight, before)


def test_its_state_is_small() -> None:
    """Of Stable Diffusion 1.5's ControlNet: AdamW keeps 2.9 GB."""
    control = ControlNet.from_backbone(meta_backbone(SD15))
    parameters = list(control.parameters())
    numbers = sum(p.shape[0] + p[0].numel() if p.dim() > 1 else p.numel() for p in parameters)
    assert 4 * numbers < 0.01e9
    last_two = sum(
        p.numel() / p.shape[-1] + p.numel() / p.shape[-2] for p in parameters if p.dim() > 1
    )
    assert 4 * last_two > 0.7e9  # what factoring the last two axes would keep
