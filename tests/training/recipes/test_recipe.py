"""Recipes: what they say, what they refuse, and that every one in the repository is valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroconv.errors import UserError
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.recipe import load_recipe, parse_recipe
from zeroconv.training.recipes.settings import check_recipe
from zeroconv.training.recipes.text import apply_overrides, read_recipe

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
LEAST = {
    "out": "runs/x",
    "data": {"train": "pictures", "condition": "canny"},
    "training": {"steps": 10},
}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Path) -> None:
    values = read_recipe(path)
    if "lora" in values:
        recipe = check_recipe(LoraRecipe, values, str(path))
    else:
        recipe = parse_recipe(values, str(path))
        # the paper's; but the circles' colours are in their prompts alone, and the
        # tutorial's own code drops none
        assert recipe.training.prompt_dropping == (
            0.05 if path.stem.startswith(("fill50k-playroom", "fill50k-flow")) else 0.5
        )
    assert recipe.out.name == path.stem


def test_there_are_recipes() -> None:
    names = {path.stem for path in RECIPES.glob("*.yaml")}
    assert names >= {
        "playroom-canny",
        "playroom-depth",
        "stickers-canny",
        "fill50k-sd15",
        "playroom-pencil",
        "playroom-night",
    }


def test_defaults_are_the_papers() -> None:
    recipe = parse_recipe(LEAST)
    assert recipe.training.learning_rate == 1e-5
    assert recipe.control.hint_encoder == "released"
    assert recipe.data.train == ("pictures",)


def test_overrides_are_read_as_yaml() -> None:
    changed = apply_overrides(
        LEAST, ["training.steps=20", "data.train=[a, b]", "control.connections=lite"]
    )
    recipe = parse_recipe(changed)
    assert recipe.training.steps == 20
    assert recipe.data.train == ("a", "b")
    assert recipe.control.connections == "lite"
    assert LEAST["training"] == {"steps": 10}
    assert (
        parse_recipe(apply_overrides(LEAST, ["training.learning_rate=1e-4"])).training.learning_rate
        == 1e-4
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.stepz=3", "no setting training.stepz; did you mean steps"),
        ("trainning.steps=3", "no setting trainning; did you mean training"),
        ("training.steps=many", "training.steps is 'many'"),
        ("training.steps=0", "training.steps is 0"),
        ("training.warmup=10", "warmup is 10 of 10 steps"),
        ("training.prompt_dropping=1.5", "training.prompt_dropping is 1.5"),
        ("data.condition=null", "data.condition is empty; give a text"),
        ("data.condition=", "data.condition is empty; give a text"),
        ("out=", "out is empty; give a path"),
        ("out=[a]", r"out is \['a'\]; give a path"),
        ("data.train=3", "data.train is 3; give one value, or a list of them"),
        ("data.flip=perhaps", "data.flip is 'perhaps'; give true or false"),
        ("training=1", "training is 1; give settings, such as {name: value}"),
        ("data.train=[]", "data.train"),
        ("training.steps", "not of the form"),
        ("data.train.x=1", "holds a value"),
        ("control.connections=heavy", "control.connections is 'heavy'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        parse_recipe(apply_overrides(LEAST, [override]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.flip=true", "data.condition=heatmap"], "in a mirror is not known"),
        (["control.init=playroom-canny", "control.hint_encoder=paper"], "brings its own network"),
    ],
)
def test_conflicts_are_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_recipe(apply_overrides(LEAST, overrides))


def test_a_wrong_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe"):
        load_recipe(tmp_path / "none.yaml")
    for text, sentence in (("a: [", "no YAML"), ("", "empty"), ("out: x", "data is missing")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UserError, match=sentence):
            load_recipe(tmp_path / "bad.yaml")
