"""Averages of a training: each with its decay, under the model's names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from zeroconv.scratch.loop.averages import Averages
from zeroconv.scratch.loop.state import read_average


def test_averages_follow_the_weights_each_with_its_decay() -> None:
    model = nn.Linear(2, 2)
    averages = Averages(model, decays=(0.5, 0.999), every=2)
    with torch.no_grad():
        model.weight.fill_(0.0)
        for ema in averages.emas.values():
            ema.average[0].fill_(1.0)
            ema.updates = 100
        for _ in range(4):
            averages.update()

    assert torch.allclose(averages.of(0.5)["weight"], torch.tensor(0.5**4))
    slow = ((1 + 102) / (10 + 102)) * ((1 + 104) / (10 + 104))  # limited early on
    assert torch.allclose(averages.of(0.999)["weight"], torch.tensor(slow))


def test_averages_are_written_under_the_names_of_the_model(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(3)  # has a buffer that is no float
    Averages(model, decays=(0.9,)).save(tmp_path, 7)
    weights, step = read_average(tmp_path, "0.9")

    assert step == 7
    assert set(weights) == {"weight", "bias", "running_mean", "running_var"}
