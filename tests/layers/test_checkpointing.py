"""Computing again what is not kept: the same numbers, bit for bit, and as little memory as was
asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_backbone_xl
from zeroconv.backbones import UNetBackbone, load_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.layers.checkpointing import Ledger, Part, choose, recompute_
from zeroconv.layers.live_bytes import LiveBytes
from zeroconv.training.execution.memory import activations, backbone_weights, chosen, micro_batch
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.training import parse_size

BASES: dict[str, Callable[[], UNetBackbone]] = {
    "tiny": tiny_backbone,
    "tiny-xl": tiny_backbone_xl,
    "playroom": lambda: load_backbone("playroom"),
}
N, SIZE = 2, (16, 16)


def make(base: str, autocast: torch.dtype | None = None) -> tuple[ControlledLoss, Any]:
    backbone = BASES[base]()
    torch.manual_seed(0)
    control = randomise_(ControlNet.from_backbone(backbone), 0.3).train()
    text = backbone.embed_text(["a", "b"])
    return ControlledLoss(backbone, control, autocast), text


def gradients(loss: ControlledLoss, text: Any) -> list[Tensor]:
    generator, scale = torch.Generator().manual_seed(5), loss.backbone.latent_scale
    z, noise = torch.randn(2, N, loss.backbone.latent_channels, *SIZE, generator=generator)
    hints = torch.randint(0, 255, (N, 3, SIZE[0] * scale, SIZE[1] * scale), generator=generator).to(
        torch.uint8
    )
    errors = loss.errors(z, noise, torch.tensor([300, 700]), hints, text)
    errors.mean().backward()
    taken = [errors.detach(), *(p.grad for p in loss.parameters() if p.grad is not None)]
    loss.zero_grad()
    return taken


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_gradients_are_the_same_bit_for_bit(base: str, autocast: torch.dtype | None) -> None:
    loss, text = make(base, autocast)
    plain = gradients(loss, text)
    assert len(plain) > 100 and all(g.any() for g in plain)
    names = list(loss.state_dict())
    ledger = activations(loss, N, SIZE, text)
    for part in ledger.parts:
        recompute_(part.module)
    again = gradients(loss, text)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert list(loss.state_dict()) == names


def live_after_forward(loss: ControlledLoss, text: Any) -> int:
    with LiveBytes() as live:
        output = micro_batch(loss, N, SIZE, text)()
        kept = live.now
    del output
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("setting", ["none", "70%", "full"])
def test_what_is_reckoned_is_what_is_kept(base: str, setting: str) -> None:
    """Beside a count of all tensors that are alive behind the forward pass of a real step."""
    loss, text = make(base)
    ledger = activations(loss, N, SIZE, text)
    setting = f"{ledger.peak([]) * 0.7e-6:.4f}MB" if setting == "70%" else setting
    again = chosen(ledger, setting)
    for i in again:
        recompute_(ledger.parts[i].module)
    assert live_after_forward(loss, text) == pytest.approx(ledger.kept(again), rel=0.03)


def test_fake_tensors_leave_nothing_behind() -> None:
    loss, text = make("tiny")
    plain = gradients(loss, text)
    activations(loss, N, SIZE, text)
    assert all(type(p.data) is Tensor for p in [*loss.parameters(), *backbone_weights(loss)])
    loss.to(torch.float64).to(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(loss, text), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loss.modules())


def part(entry: list[int], held: list[int], flops: int) -> Part:
    return Part(nn.Identity(), frozenset(entry), frozenset(held), flops)


def test_the_cheapest_recomputation_is_chosen() -> None:
    """Three parts of 100 bytes each, the second cheap, the third twice the price of the first."""
    parts = (part([0], [0, 1], 20), part([2], [2, 3], 1), part([4], [4, 5], 40))
    ledger = Ledger(parts, frozenset([6]), (10, 90, 10, 90, 10, 90, 50))
    assert ledger.kept([]) == 350
    assert choose(ledger, 350) == []
    assert choose(ledger, 300) == [1]
    assert choose(ledger, 170) == [0, 1]
    assert choose(ledger, 370, beside=200) == [0, 1]
    # computing the last again too frees nothing: it is whole once more when the backward pass
    # begins
    assert ledger.kept([0, 1, 2]) == 80 and ledger.peak([0, 1, 2]) == 170
    with pytest.raises(UserError, match="even if everything is computed again"):
        choose(ledger, 169)


def test_a_storage_that_another_part_needs_is_not_saved() -> None:
    """The first is cheap, but what it holds is what goes into the second."""
    parts = (part([0], [0, 1], 1), part([1], [1, 2], 5), part([3], [3], 1))
    ledger = Ledger(parts, frozenset(), (1, 100, 100, 1))
    assert ledger.kept([0]) == ledger.kept([]) == 202
    assert choose(ledger, 201) == [1]


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("1.5 GB", 15 * 10**8), ("800MB", 8 * 10**8), ("1GiB", 2**30)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
