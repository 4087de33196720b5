"""Settings of recipes: every number has a range that is told, and what is shown of a recipe holds
no password.
"""

from __future__ import annotations

import typing
from copy import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from zeroconv.errors import UserError
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.recipes.settings import bounds_of, check_recipe, numbers_of
from zeroconv.training.recipes.training import parse_action, parse_size

LEAST: dict[str, Any] = {
    "out": "runs/x",
    "data": {"train": "pictures", "condition": "canny", "buckets": {}},
    "training": {"steps": 10, "validation": [{"prompt": "a"}]},
    "control": {},
}
LEAST_LORA: dict[str, Any] = {
    "out": "runs/x",
    "data": {"train": "p"},
    "training": {"steps": 10, "validation": [{"prompt": "a"}]},
    "lora": {},
}


def models(
    kind: Any, path: tuple[str, ...] = ()
) -> typing.Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    yield path, kind
    for name, field in kind.model_fields.items():
        for part in {field.annotation, *typing.get_args(field.annotation)}:
            if hasattr(part, "model_fields"):
                several = typing.get_origin(field.annotation) is tuple
                yield from models(part, (*path, name, *["0"] * several))


NUMBERS = sorted(
    (least is LEAST_LORA, path, name)
    for kind, least in ((Recipe, LEAST), (LoraRecipe, LEAST_LORA))
    for path, model in models(kind)
    for name, field in model.model_fields.items()
    if numbers_of(field)
)


def test_there_are_numbers_to_bound() -> None:
    assert len(NUMBERS) > 60
    assert (False, ("data", "buckets"), "step") in NUMBERS and (True, ("lora",), "rank") in NUMBERS


@pytest.mark.parametrize("kind", [Recipe, LoraRecipe])
def test_every_number_of_a_recipe_has_bounds(kind: type[BaseModel]) -> None:
    for path, model in models(kind):
        for name, field in model.model_fields.items():
            if numbers_of(field):
                assert None not in bounds_of(field), (
                    f"{'.'.join((*path, name))} needs a least and a greatest value"
                )


def least(lora: bool, path: tuple[str, ...], name: str, value: object) -> dict[str, Any]:
    """The shortest recipe with this value at the place."""
    values = dict(LEAST_LORA if lora else LEAST)
    if "reward" in path:  # a LoRA has none, so only where it is meant
        values["training"] = {**values["training"], "reward": {"weight": 1}}
    if "lcm" in path:
        values["lora"] = {**values.get("lora", {}), "kind": "lcm", "lcm": {}}
    inner = values
    for part in path:
        key: Any = int(part) if part.isdecimal() else part
        inner[key] = copy(inner[key])
        inner = inner[key]
    inner[name] = value
    return values


def wrong(lora: bool, path: tuple[str, ...], name: str, value: object) -> str:
    """The sentence for a recipe with this value at the place."""
    values = least(lora, path, name, value)
    with pytest.raises(UserError) as caught:
        check_recipe(LoraRecipe if lora else Recipe, values, "x.yaml")
    return str(caught.value)


@pytest.mark.parametrize(("lora", "path", "name"), NUMBERS)
def test_recipe_number_out_of_range_is_refused_with_its_range(
    lora: bool, path: tuple[str, ...], name: str
) -> None:
    for value in (
        10**30,
        -(10**30),
        1e300,
        float("inf"),
        float("-inf"),
        float("nan"),
        True,
        "9" * 5000,
        "1e999",
    ):
        message = wrong(lora, path, name, value)
        assert (
            message.startswith(f"x.yaml: {'.'.join((*path, name))} is ") and " from " in message
        ), message
        assert len(message) < 300


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(NUMBERS),
    st.one_of(
        st.floats(),
        st.integers(),
        st.text(),
        st.booleans(),
        st.none(),
        st.lists(st.integers(), max_size=3),
    ),
)
def test_any_value_of_a_number_is_taken_or_one_sentence(number: Any, value: object) -> None:
    lora, path, name = number
    values = least(lora, path, name, value)
    message = ""
    try:
        check_recipe(LoraRecipe if lora else Recipe, values, "x.yaml")
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("control.hint_widths", [10**9], "control.hint_widths"),
        ("control.hint_widths", [8] * 9, "control.hint_widths"),
        (
            "control.options",
            {"rank": 10**9},
            "control.options.rank is 1000000000; give a number from 1 to 1,024",
        ),
        ("control.options", {"ratio": float("nan")}, "control.options.ratio is nan"),
        ("control.options", {"res_blocks": 10**400}, "control.options.res_blocks is 10000"),
        ("control.options", {"ratio": True}, "control.options.ratio holds bool"),
        ("control.options", {"hint_widths": [8] * 17}, "control.options.hint_widths has 17 values"),
        (
            "control.options",
            {"hint_widths": [8, 10**9]},
            "control.options.hint_widths is 1000000000",
        ),
        ("control.options", {"a": {"b": 1}}, "control.options.a holds dict"),
        ("out", "", "is no path"),
        ("out", "a\0b", "is no path"),
        ("out", "~nobody-of-this-name/x", "home folder that is not there"),
        ("data.condition", "x" * 100_000, "data.condition"),
    ],
)
def test_a_setting_is_refused(path: str, value: object, message: str) -> None:
    *folders, name = path.split(".")
    if name == "options":
        with pytest.raises(UserError, match=message):
            check_recipe(Recipe, {**LEAST, "control": {"kind": "lora", name: value}}, "x")
    else:
        import re

        assert re.search(message, wrong(False, tuple(folders), name, value))


def test_paths_of_a_recipe_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    values = {
        **LEAST,
        "out": "~/x",
        "base": "~/b",
        "data": {**LEAST["data"], "cache": "~/c"},
        "control": {"init": "~"},
    }
    recipe = check_recipe(Recipe, values, "x")
    assert recipe.out == tmp_path / "x" and recipe.base == str(tmp_path / "b")
    assert recipe.data.cache == tmp_path / "c" and recipe.control.init == str(tmp_path)


def test_what_is_written_of_a_recipe_holds_no_password() -> None:
    spec = "https://me:secret@host/train.tar"
    values = {**LEAST, "data": {**LEAST["data"], "train": spec, "validation": [spec]}}
    recipe = check_recipe(Recipe, values, "x")
    assert recipe.data.train == (spec,)
    for written in (
        recipe.model_dump_json(),
        str(recipe.model_dump(mode="json")),
        str(recipe.identity()),
    ):
        assert "secret" not in written and "***@host/train.tar" in written
    assert "secret" not in wrong(False, ("data",), "train", {"a": spec})


def test_sizes_and_actions_of_many_digits_are_refused() -> None:
    for text in ("9" * 400 + "GB", "1." + "0" * 5000 + "GB"):
        with pytest.raises(ValueError, match="no setting of"):
            parse_size(text)
    for text in ("stop_after=1e300", "stop_after=inf", "enlarge_batch=nan", "lower_lr=-1"):
        with pytest.raises(ValueError, match="is no action"):
            parse_action(text)
