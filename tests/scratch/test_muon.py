"""The batched Muon takes the steps of the plain one."""

from __future__ import annotations

import pytest
import torch

from tests.scratch.tiny import tiny_task
from zeroconv.optim import muon as optim
from zeroconv.scratch.averages import Averages
from zeroconv.scratch.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 16, 144), (1, 32, 32), (2, 64, 16)])
def test_orthogonalise_by_grams_is_newton_schulz(shape: tuple[int, int, int]):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([optim.orthogonalise(matrix) for matrix in x])

    assert torch.allclose(orthogonalise(x), one_by_one, atol=1e-3)


def test_muon_of_many_is_muon_of_each():
    models = [tiny_task().model for _ in range(2)]
    kinds = (Muon, optim.Muon)
    optimizers = [
        kind(optim.muon_groups([model]), lr=1e-2) for kind, model in zip(kinds, models, strict=True)
    ]

    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            generator = torch.Generator().manual_seed(step)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    pairs = zip(*(model.parameters() for model in models), strict=True)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in pairs)


def test_averages_follow_the_weights_each_with_its_decay():
    model = torch.nn.Linear(2, 2)
    averages = Averages(model, decays=(0.5, 0.999), every=2)
    with torch.no_grad():
        model.weight.fill_(0.0)
        for kept in averages.kept.values():
            kept[0].fill_(1.0)
        for step in range(101, 105):
            averages.update(step)

    assert torch.allclose(averages.of(0.5)["weight"], torch.tensor(0.5**4))
    slow = ((1 + 102) / (10 + 102)) * ((1 + 104) / (10 + 104))  # limited early on
    assert torch.allclose(averages.of(0.999)["weight"], torch.tensor(slow))
