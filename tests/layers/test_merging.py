"""Tokens merged before an attention and copied back after it, against the plain way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from zeroconv.layers import merging
from zeroconv.layers.merging import MOST, Merging, destinations, highest, match


def plain(x: torch.Tensor, targets: list[int], count: int) -> tuple[torch.Tensor, dict[int, int]]:
    """One picture (L, C), token by token: merged tokens by their destination's position, and which
    source went where.
    """
    sources = [i for i in range(len(x)) if i not in targets]
    best = {}
    for i in sources:
        alike = [float(torch.dot(x[i], x[j]) / (x[i].norm() * x[j].norm())) for j in targets]
        best[i] = (max(alike), targets[int(np.argmax(alike))])
    chosen = sorted(sources, key=lambda i: -best[i][0])[:count]
    into = {i: best[i][1] for i in chosen}
    y = x.clone()
    for j in targets:
        y[j] = torch.stack([x[j], *(x[i] for i in chosen if into[i] == j)]).mean(0)
    return y, into


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (2, 6)])
@pytest.mark.parametrize("share", [0.2, 0.5, MOST])
@pytest.mark.parametrize("at_once", [1, 10**6])
def test_merging_is_that_of_the_plain_way(size, share, at_once, monkeypatch) -> None:
    monkeypatch.setattr(merging, "AT_ONCE", at_once)
    length = math.prod(size)
    x = torch.randn(2, length, 6)
    drawn = [destinations(*size, np.random.default_rng([7, n])) for n in range(2)]
    count = min(int(share * length), length - len(drawn[0]))
    merged = match(x, torch.from_numpy(np.stack(drawn)), count)
    y = merged.merge(x)
    assert y.shape == (2, length - count, 6)
    back = merged.unmerge(y)
    for n in range(2):
        expected, into = plain(x[n], drawn[n].tolist(), count)
        for i in range(length):
            assert torch.allclose(back[n, i], expected[into.get(i, i)], atol=1e-6)


def test_destinations_are_one_of_each_window_and_all_alike_often() -> None:
    counts = np.zeros(20)
    for seed in range(400):
        drawn = destinations(5, 4, np.random.default_rng(seed))
        windows = {(p // 4 // 2, p % 4 // 2) for p in drawn}
        assert len(drawn) == len(windows) == 4 and max(drawn) < 16
        counts[drawn] += 1
    assert counts[16:].sum() == 0 and counts[:16].min() > 60 and counts.max() < 140


class Net(nn.Module):
    """A level without attention, then two with it, as a UNet has them."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers.models.attention import BasicTransformerBlock

        def block() -> nn.Module:
            return BasicTransformerBlock(8, 2, 4, cross_attention_dim=8)

        self.down_blocks = nn.ModuleList([nn.Identity(), block(), block()])
        self.up_blocks = nn.ModuleList([block(), block(), nn.Identity()])


def test_merging_is_in_the_highest_resolution_with_attention_alone() -> None:
    net = Net()
    down, up = net.down_blocks, net.up_blocks
    assert highest(net) == [down[1].attn1, up[1].attn1]
    assert Merging.layers(net, net) == highest(net)
    assert Merging.layers(nn.Linear(2, 2)) == []
    # level 1 of latents of 8 × 8 has 16 tokens
    x, text = torch.randn(2, 16, 8), torch.randn(2, 3, 8)
    plain_out = [block(x, encoder_hidden_states=text) for block in (down[1], down[2])]
    lengths: list[int] = []
    down[1].attn1.to_q.register_forward_hook(lambda m, args, out: lengths.append(args[0].shape[1]))
    run = Merging(0.5, [0, 1], (8, 8))
    with run.attached(net):
        merged = down[1](x, encoder_hidden_states=text)
        assert not torch.allclose(merged, plain_out[0], atol=1e-3)
        assert torch.equal(down[2](x, encoder_hidden_states=text), plain_out[1])
        run.on = False
        assert torch.equal(down[1](x, encoder_hidden_states=text), plain_out[0])
    assert torch.equal(down[1](x, encoder_hidden_states=text), plain_out[0])
    assert lengths == [8, 16, 16] and "forward" not in vars(down[1].attn1)


def test_merging_draws_by_seed_step_and_layer_and_not_by_batch() -> None:
    run = Merging(0.5, [3, 4], (8, 8))
    both = run._targets(0, 4, 64)
    assert torch.equal(both[:2], both[2:]) and not torch.equal(both[0], both[1])
    assert torch.equal(Merging(0.5, [4], (8, 8))._targets(0, 1, 64)[0], both[1])
    assert not torch.equal(run._targets(1, 2, 64), both[:2])
    run.step = 1
    assert not torch.equal(run._targets(0, 2, 64), both[:2])


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_merging_of_no_token_gives_the_same_bits(share) -> None:
    layer, x = Attention(8, heads=2, dim_head=4), torch.randn(2, 16, 8)
    run = Merging(share, [0, 1], (4, 4))
    assert torch.equal(run._attend(0, layer.forward, x), layer(x))
    wide = Merging(0.5, [0], (1, 16))  # no windows
    assert torch.equal(wide._attend(0, layer.forward, x), layer(x))
