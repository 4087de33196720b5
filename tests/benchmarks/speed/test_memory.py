"""Recipes for cards of a size: what they say they take is what is reckoned, and it fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import figures
from benchmarks.common import RESULTS
from benchmarks.speed import memory
from tools.reports import ROOT
from zeroconv.training.recipes.recipe import load_recipe

ROWS = {
    row[0]: row for row in json.loads((RESULTS / "memory.json").read_text(encoding="utf-8"))["rows"]
}
RECIPES = memory.recipes()


def test_there_is_one_for_every_base_and_card() -> None:
    assert {path.stem for path in RECIPES} == {
        f"{base}-{card}gb" for base in ("sd15", "sd21") for card in CARDS
    }
    assert set(ROWS) == {path.stem for path in RECIPES}


CARDS = (8, 12, 16, 24, 80)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_is_reckoned_and_fits_its_card(path: Path) -> None:
    *parts, total = map(float, ROWS[path.stem][1:])
    assert sum(parts) == pytest.approx(total, abs=0.1)
    assert f"# Expected: {total:.1f} GB" in path.read_text(encoding="utf-8"), (
        "run python -m benchmarks.speed.memory"
    )
    # the driver's context, and some room
    assert total * 1e9 < 0.93 * memory.card_of(path) * 2**30 - 0.3e9


@pytest.mark.slow
@pytest.mark.parametrize("path", memory.recipes("sdxl"), ids=lambda path: path.stem)
def test_a_recipe_of_sdxl_fits_its_card(path: Path) -> None:
    need = memory.reckon(load_recipe(path))
    assert need.total < 0.93 * memory.card_of(path) * 2**30 - 0.3e9


def test_recipes_of_sdxl_are_read_and_named_for_their_card() -> None:
    cards = {memory.card_of(path): load_recipe(path) for path in memory.recipes("sdxl")}
    assert set(cards) == {12, 16, 24, 80}
    assert all(recipe.data.size == 1024 and recipe.data.buckets for recipe in cards.values())


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_reckoning_is_todays(path: Path) -> None:
    assert memory.row(path, memory.reckon(load_recipe(path))) == ROWS[path.stem]


def test_the_page_shows_the_table() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert figures.rewrite(text, RESULTS) == text, "run python -m benchmarks.speed.memory"
