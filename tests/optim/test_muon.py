"""Muon: both ways of updating take the same steps, and states of both kinds are read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from zeroconv.optim.muon import Muon, muon_groups
from zeroconv.optim.orthogonal import orthogonalise, orthogonalise_many


def a_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Filters, two matrices of one shape, a tall one, norms and biases; some go to AdamW."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Conv2d(16, 24, 3), nn.Linear(16, 64))
    return nn.ModuleList([*layers, nn.GroupNorm(4, 16), nn.Embedding(20, 16)]).to(dtype)


def give_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def plain_step(model: nn.Module, memory: dict, step: int, lr: float) -> None:
    """The update by its formulas, one parameter at a time."""
    hidden = {id(p) for p in muon_groups([model])[0]["params"]}

    for i, p in enumerate(model.parameters()):
        g: Tensor = p.grad  # type: ignore[assignment]
        if id(p) in hidden:
            momentum = memory.setdefault(i, torch.zeros_like(p)).lerp_(g, 1 - 0.95)
            matrix = g.lerp(momentum, 0.95).reshape(p.shape[0], -1)
            update = (orthogonalise(matrix) * (0.2 * max(matrix.shape) ** 0.5)).reshape(p.shape)
            decay = 0.01
        else:
            mean, square = memory.setdefault(i, (torch.zeros_like(p), torch.zeros_like(p)))
            mean.lerp_(g, 1 - 0.9)
            square.mul_(0.99).addcmul_(g, g, value=1 - 0.99)
            update = mean / (1 - 0.9**step) / ((square / (1 - 0.99**step)).sqrt() + 1e-8)
            decay = 0.0
        with torch.no_grad():
            p.mul_(1 - lr * decay).add_(update, alpha=-lr)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_takes_the_steps_of_its_formulas_bit_for_bit(dtype: torch.dtype) -> None:
    one, other = a_model(dtype), a_model(dtype)
    optimizer, memory = Muon(muon_groups([one]), lr=1e-2), {}  # type: ignore[var-annotated]

    for step in range(1, 5):
        give_gradients(one, step)
        give_gradients(other, step)
        optimizer.step()
        plain_step(other, memory, step, 1e-2)

    assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("shape", [(3, 16, 144), (1, 32, 32), (2, 64, 16)])
def test_orthogonalise_many_is_orthogonalise_of_each(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([orthogonalise(matrix) for matrix in x])

    assert torch.allclose(orthogonalise_many(x), one_by_one, atol=1e-3)


def test_stacked_muon_takes_the_steps_of_plain_muon() -> None:
    models = [a_model(), a_model()]
    ways = (True, False)
    optimizers = [
        Muon(muon_groups([model]), lr=1e-2, stacked=way)
        for model, way in zip(models, ways, strict=True)
    ]

    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            give_gradients(model, step)
            optimizer.step()

    pairs = zip(*(model.parameters() for model in models), strict=True)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in pairs)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("older", [True, False])
def test_muon_goes_on_from_a_state_bit_for_bit(stacked: bool, older: bool) -> None:
    """Also from one that counts the steps of a group, as stacked states once did."""
    straight, cut = a_model(), a_model()
    first = Muon(muon_groups([straight]), lr=1e-2, stacked=stacked)
    for step in range(3):
        give_gradients(straight, step)
        first.step()
    cut.load_state_dict(straight.state_dict())

    state = copy.deepcopy(first.state_dict())
    if older:
        state["param_groups"][1]["steps"] = 3
        for values in state["state"].values():
            values.pop("step", None)
    second = Muon(muon_groups([cut]), lr=1e-2, stacked=stacked)
    second.load_state_dict(state)

    for step in range(3, 6):
        for model, optimizer in ((straight, first), (cut, second)):
            give_gradients(model, step)
            optimizer.step()
    assert all(map(torch.equal, straight.parameters(), cut.parameters()))
    assert "steps" not in second.param_groups[1]


@pytest.mark.parametrize("stacked", [True, False])
def test_muon_counts_the_steps_of_a_parameter_by_its_gradients(stacked: bool) -> None:
    models = [a_model(), a_model()]
    optimizers = [Muon(muon_groups([model]), lr=1e-2, stacked=stacked) for model in models]

    for step, late in ((0, False), (1, True)):
        for i, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            give_gradients(model, step)
            if i and not late:  # the second's biases have their first gradient at its second step
                for p in model.parameters():
                    p.grad = p.grad if p.ndim > 1 else None
            optimizer.step()

    biases = [p for p in models[1].parameters() if p.ndim == 1]
    steps = {optimizers[1].state[p]["step"] for p in biases}
    assert steps == {1}
    first = biases[0] - a_model()[0].bias  # type: ignore[union-attr]
    assert torch.allclose(first.abs(), torch.full_like(first, 1e-2), rtol=1e-3)
