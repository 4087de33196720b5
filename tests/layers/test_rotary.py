"""RMS norm and rotary embedding in one operation, beside torch's and diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from zeroconv.layers import rotary
from zeroconv.layers.rotary import angles, normed_and_turned

HEADS, WIDTH, EPS = 3, 8, 1e-6


def tables(length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, WIDTH), each number twice."""
    theta = torch.rand(length, WIDTH // 2).repeat_interleave(2, dim=1) * 6
    return theta.cos(), theta.sin()


def plainly(streams: list[tuple[Tensor, Tensor]], both: tuple[Tensor, Tensor]) -> Tensor:
    normed = [nn.functional.rms_norm(x, (WIDTH,), weight, EPS) for x, weight in streams]
    return apply_rotary_emb(torch.cat(normed, dim=1), both, sequence_dim=1)


@pytest.mark.parametrize("numbers", [50, 2**17])  # in several pieces, and in one
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("lengths", [(5,), (3, 7)])
def test_rotary_norm_is_that_of_diffusers_forwards_and_backwards(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...], n: int, numbers: int
) -> None:
    monkeypatch.setattr(rotary, "NUMBERS", numbers)
    both = tables(sum(lengths))
    streams = [
        (torch.randn(n, length, HEADS, WIDTH).requires_grad_(), torch.randn(WIDTH).requires_grad_())
        for length in lengths
    ]
    # laid out as attention gives its gradient: heads before tokens
    weights = torch.randn(n, HEADS, sum(lengths), WIDTH).transpose(1, 2)
    leaves = [tensor for stream in streams for tensor in stream]
    wanted = plainly(streams, both)
    made = normed_and_turned(streams, angles(*both), EPS)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
    theirs = torch.autograd.grad((wanted * weights).sum(), leaves)
    ours = torch.autograd.grad(made, leaves, weights)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_rotary_norm_leaves_out_gradients_nobody_asks_for() -> None:
    text, image = torch.randn(1, 3, HEADS, WIDTH), torch.randn(1, 4, HEADS, WIDTH)
    weight = torch.randn(WIDTH)
    made = normed_and_turned(
        [(text, weight), (image.requires_grad_(), weight)], angles(*tables(7)), EPS
    )
    made.sum().backward()
    assert image.grad is not None
    assert text.grad is None and weight.grad is None
