"""`training.optimizer` by its class: from an allow-list, with the class's own options."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from zeroconv.errors import UserError
from zeroconv.training.named_optimizer import make_named
from zeroconv.training.recipes.recipe import parse_recipe


def recipe(optimizer):
    return parse_recipe(
        {
            "out": "run",
            "data": {"train": "x", "condition": "depth"},
            "training": {"steps": 3, "optimizer": optimizer},
        }
    )


def wish(**options):
    return recipe(options).training.optimizer


@pytest.mark.parametrize(
    "name", ["RAdam", "NAdam", "Adamax", "SGD", "Adadelta", "ASGD", "Rprop", "RMSprop", "Adagrad"]
)
def test_optimizer_class_of_torch_takes_steps(name: str) -> None:
    weight = nn.Parameter(torch.ones(3))
    made = make_named(wish(**{"class": f"torch.optim.{name}"}), [weight], 0.1, 0.0)
    assert type(made) is getattr(torch.optim, name) and made.param_groups[0]["lr"] == 0.1
    weight.grad = torch.ones(3)
    made.step()
    assert (weight < 1).all()


def test_optimizer_class_options_and_decay_reach_it() -> None:
    given = wish(**{"class": "torch.optim.RAdam", "betas": [0.8, 0.9], "eps": 1e-4})
    made = make_named(given, [nn.Parameter(torch.ones(1))], 0.1, 0.25)
    group = made.param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.9), 1e-4, 0.25)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"class": "os.system"}, "give a class of torch.optim"),
        ({"class": "torch.optim.lr_scheduler.StepLR"}, "give a class of torch.optim"),
        ({"class": "torch.optim..RAdam"}, "give a class of torch.optim"),
        ({"class": "zeroconv.training.run"}, "give a class of torch.optim"),
        ({"class": "RAdam"}, "give a class of torch.optim"),
        ({"class": "torch.optim.LBFGS"}, "several times a step"),
        ({"class": "torch.optim.RAdam", "lr": 1}, "is training.learning_rate"),
        ({"class": "torch.optim.RAdam", "betas": {"a": 1}}, "is no option"),
        ({"betas": [1, 2]}, "has no class"),
        ({"class": 7}, "class"),
        ("radam", "optimizer"),
    ],
)
def test_optimizer_class_is_refused_in_one_sentence(given, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refused:
        recipe(given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"class": "torch.optim.NoSuch"}, "has no optimiser NoSuch"),
        ({"class": "torch.optim.lr_scheduler"}, "has no optimiser lr_scheduler"),
        ({"class": "torch.optim.RAdam", "rank": 3}, "no option 'rank'; it has betas"),
        ({"class": "torch.optim.RAdam", "betas": [2, 3]}, "does not take these options"),
        ({"class": "prodigyopt.Prodigy"}, "needs the package prodigyopt"),
    ],
)
def test_optimizer_class_that_cannot_be_made_is_refused(given, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        make_named(wish(**given), [nn.Parameter(torch.ones(1))], 0.1, 0.0)


def test_optimizer_class_of_an_installed_package_is_imported_by_name_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = types.ModuleType("prodigyopt")
    package.Prodigy = type("Prodigy", (torch.optim.SGD,), {})  # type: ignore[attr-defined]
    given = wish(**{"class": "prodigyopt.Prodigy"})
    assert "prodigyopt" not in sys.modules
    monkeypatch.setitem(sys.modules, "prodigyopt", package)
    assert isinstance(make_named(given, [nn.Parameter(torch.ones(1))], 1, 0.0), package.Prodigy)


def test_optimizer_class_is_part_of_what_a_run_may_not_change() -> None:
    first = recipe({"class": "torch.optim.RAdam"})
    second = recipe({"class": "torch.optim.RAdam", "eps": 1e-4})
    assert first.identity() != second.identity()
    again = parse_recipe(first.model_dump(mode="json", exclude={"device"}) | {})
    assert again.identity() == first.identity()
