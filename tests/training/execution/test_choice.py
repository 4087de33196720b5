"""The execution of a run is chosen once, and trainers know none of them by name."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from zeroconv.errors import UserError
from zeroconv.training import loop, state, trainer
from zeroconv.training.execution import choice
from zeroconv.training.execution.choice import Launch, launch
from zeroconv.training.execution.cuda_graphs import CudaGraphs
from zeroconv.training.execution.deepspeed import DeepSpeed
from zeroconv.training.execution.eager import Eager
from zeroconv.training.execution.fsdp import Fsdp
from zeroconv.training.execution.protocol import Execution
from zeroconv.training.lora import trainer as lora_trainer
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.recipe import AnyRecipe, Recipe
from zeroconv.training.recipes.settings import check_recipe

Make = Callable[..., Recipe]
NAMES = re.compile(
    r"shard|fsdp|zero(?!conv)|deepspeed|graphs|ddp|distributed|accelerat|torch\.dist"
)


@pytest.mark.parametrize("module", [trainer, lora_trainer, loop, state])
def test_trainer_names_no_parallelism(module: ModuleType) -> None:
    tree = ast.parse(inspect.getsource(module))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    wrong = {name for name in names if NAMES.search(name.lower())}
    assert wrong <= {"zero_grad"}


def test_trainer_s_constructor_fits_a_screen() -> None:
    lines = inspect.getsource(trainer.Trainer.__init__).splitlines()
    assert len(lines) <= 40


@pytest.mark.parametrize("kind", [Eager, CudaGraphs, Fsdp, DeepSpeed])
def test_execution_has_what_the_protocol_asks_for(kind: type) -> None:
    wanted = {name for name in vars(Execution) if not name.startswith("_")}
    assert {"gradients", "clip", "gather", "scatter", "averaged"} <= wanted
    for name in wanted:
        signature = inspect.signature(getattr(kind, name))
        assert signature.parameters.keys() == (
            inspect.signature(getattr(Execution, name)).parameters.keys()
        ), name


@pytest.mark.parametrize(
    ("kind", "processes", "recordable", "chosen"),
    [
        (Eager, 1, False, "Eager"),
        (Eager, 1, True, "CudaGraphs"),
        (Eager, 2, True, "Eager"),
        (DeepSpeed, 1, True, "DeepSpeed"),
        (Fsdp, 2, True, "Fsdp"),
    ],
)
def test_execution_is_recorded_in_one_plain_process_alone(
    kind: Any,
    processes: int,
    recordable: bool,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    for each in (Eager, CudaGraphs, DeepSpeed, Fsdp):
        monkeypatch.setattr(
            each, "__init__", lambda self, *rest, **more: made.append(type(self).__name__)
        )
    monkeypatch.setattr(choice, "can_record", lambda *words: recordable)
    model, data, settings = SimpleNamespace(loss=None), None, None
    started = Launch(SimpleNamespace(num_processes=processes), kind)
    started.execution(model, data, settings, print)  # type: ignore[arg-type]
    assert made == [chosen]


@pytest.fixture
def lora() -> LoraRecipe:
    values: dict[str, Any] = {"out": "x", "lora": {}, "data": {"train": ["x"]}}
    return check_recipe(LoraRecipe, {**values, "training": {"steps": 1}}, "test")


@pytest.fixture(params=["control", "lora"])
def any_recipe(request: pytest.FixtureRequest, recipe: Make, lora: LoraRecipe) -> AnyRecipe:
    return recipe() if request.param == "control" else lora


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "asks for Megatron-LM"),
        ({"ACCELERATE_USE_FSDP": "true"}, "asks for FSDP of version 1"),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            "ZeRO stage 3",
        ),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "there is one; launch several"),
    ],
)
def test_launch_checks_whatever_is_trained(
    any_recipe: AnyRecipe,
    wishes: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in wishes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence) as caught:
        launch(any_recipe)
    assert "\n" not in str(caught.value)


def test_launch_refuses_a_lora_under_deepspeed(
    lora: LoraRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match="a LoRA of the base does not go with DeepSpeed"):
        launch(lora)
