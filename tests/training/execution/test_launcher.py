"""What a launcher and a recipe ask for together is done or refused, and never passed over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zeroconv.errors import UserError
from zeroconv.training import train
from zeroconv.training.execution.launcher import (
    FsdpWish,
    asked_fsdp,
    check_launcher,
    check_processes,
    processors_only,
)
from zeroconv.training.recipes.recipe import Recipe

Make = Callable[..., Recipe]
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_variables(**wishes: str) -> None:
        for name, value in wishes.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize("what", ["MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_launchers_that_bring_optimisers_are_refused(
    recipe: Make, says: Callable[..., None], what: str
) -> None:
    check_launcher()
    says(**{f"ACCELERATE_USE_{what}": "true"})
    with pytest.raises(UserError, match="--use_fsdp --fsdp_version 2 shares"):
        train(recipe())


def test_the_recipe_or_the_launcher_asks(recipe: Make, says: Callable[..., None]) -> None:
    assert asked_fsdp(recipe()) is None and asked_fsdp(recipe(sharding="none")) is None
    assert asked_fsdp(recipe(sharding="fsdp")) == FsdpWish(reshard=True)
    says(**FSDP2)
    assert asked_fsdp(recipe()) == asked_fsdp(recipe(sharding="fsdp")) == FsdpWish(reshard=True)
    says(
        FSDP_RESHARD_AFTER_FORWARD="false",
        FSDP_OFFLOAD_PARAMS="false",
        FSDP_CPU_RAM_EFFICIENT_LOADING="true",
    )
    assert asked_fsdp(recipe()) == FsdpWish(reshard=False)
    says(FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP")
    note = asked_fsdp(recipe()).note  # type: ignore[union-attr]
    assert note is not None and "fsdp_auto_wrap_policy" in note


@pytest.mark.parametrize(
    ("changes", "wishes", "sentence"),
    [
        ({"sharding": "none"}, FSDP2, "for training.sharding none; drop"),
        ({}, {"ACCELERATE_USE_FSDP": "true"}, "--fsdp_version 2"),
        ({}, {**FSDP2, "FSDP_OFFLOAD_PARAMS": "true"}, "drop --fsdp_offload_params"),
        (
            {},
            {**FSDP2, "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "by training.checkpointing instead",
        ),
        ({}, {**FSDP2, "FSDP_IGNORED_MODULES": "up_blocks.*"}, "leaves alone"),
        ({}, {**FSDP2, "ACCELERATE_MIXED_PRECISION": "bf16"}, "training.precision fp32"),
        ({}, {**FSDP2, "FSDP_RESHARD_AFTER_FORWARD": "FULL_SHARD"}, "write true or false"),
        ({"sharding": "fsdp", "compile": True}, {}, "training.compile was not made for"),
        ({"sharding": "fsdp", "precision": "fp16"}, {}, "training.precision fp16 scales the loss"),
        (
            {"sharding": "fsdp", "optimizer": "muon"},
            {},
            "training.optimizer muon looks at whole tensors",
        ),
        (
            {"sharding": "fsdp", "optimizer": "adamw8bit", "precision": "bf16_weights"},
            {},
            "optimizer adamw8bit",
        ),
        (
            {"sharding": "fsdp", "control.kind": "lora", "control.hint_widths": None},
            {},
            "not a lora",
        ),
    ],
)
def test_what_is_not_done_is_refused(
    recipe: Make, says: Callable[..., None], changes: dict, wishes: dict[str, str], sentence: str
) -> None:
    says(**wishes)
    with pytest.raises(UserError, match=sentence):
        asked_fsdp(recipe(**changes))


def test_one_process_has_nothing_to_cut_up(recipe: Make) -> None:
    with pytest.raises(UserError, match="there is one"):
        train(recipe(sharding="fsdp"))
    check_processes(None, 1)
    check_processes(FsdpWish(), 2)


def test_launcher_may_name_the_recipe_s_precision(recipe: Make, says: Callable[..., None]) -> None:
    says(**FSDP2, ACCELERATE_MIXED_PRECISION="bf16")
    assert asked_fsdp(recipe(precision="bf16")) is not None


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Have the machine seem to hold graphics cards of a kind, or none."""
    import torch

    def seem(kind: str | None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
        device = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)

    return seem


LAUNCHERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_processes_without_a_card_each_meet_on_processors(
    says, cards, monkeypatch, name: str
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for kind, expected in ((None, True), ("mps", True), ("cuda", False), ("xpu", False)):
        cards(kind)
        monkeypatch.delenv(name, raising=False)
        assert not processors_only()  # one process takes what there is
        says(**{name: "1"})
        assert not processors_only()
        says(**{name: "2"})
        assert processors_only() == expected


@pytest.mark.parametrize("name", LAUNCHERS)
def test_processes_that_do_not_know_of_each_other_are_refused(says, monkeypatch, name: str) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_processes(None, 1)
    says(**{name: "2"})
    check_processes(None, 2)
    with pytest.raises(UserError, match="started 2 processes, and this one sees 1 of them"):
        check_processes(None, 1)


def test_lora_processes_that_do_not_know_of_each_other_are_refused(
    says, monkeypatch, tmp_path
) -> None:
    from zeroconv.training.lora import train_lora
    from zeroconv.training.recipes.lora import LoraRecipe
    from zeroconv.training.recipes.settings import check_recipe

    values = {
        "out": str(tmp_path / "x"),
        "lora": {},
        "data": {"train": ["x"]},
        "training": {"steps": 1},
    }
    says(WORLD_SIZE="2")
    with pytest.raises(UserError, match="started 2 processes"):
        train_lora(check_recipe(LoraRecipe, values, "test"))
    assert not (tmp_path / "x").exists()
