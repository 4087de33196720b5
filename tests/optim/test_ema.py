"""Averages of weights: their decay, and updates that only count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zeroconv.optim.ema import Ema


def follow(ema: Ema, weight: nn.Parameter, values: list[float]) -> None:
    for value in values:
        with torch.no_grad():
            weight.fill_(value)
        ema.update()


def test_ema_limits_its_decay_early_on() -> None:
    weight = nn.Parameter(torch.zeros(3))
    ema = Ema([weight], 0.999)
    follow(ema, weight, [1.0])

    assert torch.allclose(ema.average[0], torch.tensor(1 - 2 / 11))


def test_ema_of_every_few_updates_decays_by_a_power() -> None:
    weight = nn.Parameter(torch.ones(3))
    ema = Ema([weight], 0.5, every=4)
    ema.updates = 1000
    follow(ema, weight, [0.0] * 3)
    assert torch.equal(ema.average[0], torch.ones(3))

    follow(ema, weight, [0.0])
    assert torch.allclose(ema.average[0], torch.tensor(0.5**4))


@pytest.mark.parametrize("every", [1, 3])
def test_ema_goes_on_from_a_state_bit_for_bit(every: int) -> None:
    weight = nn.Parameter(torch.zeros(3))
    straight, cut = Ema([weight], 0.99, every=every), Ema([weight], 0.99, every=every)
    follow(straight, weight, [1.0, 2.0, 5.0, 3.0])
    cut.load_state_dict(straight.state_dict())
    follow(straight, weight, [7.0, 8.0])
    follow(cut, weight, [7.0, 8.0])

    assert torch.equal(straight.average[0], cut.average[0])
