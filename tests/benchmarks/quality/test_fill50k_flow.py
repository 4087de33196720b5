"""The proof on playroom-flow: every variant is a recipe that differs by what it names, and a try
goes from circles to a table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.flow_base import write_untrained
from benchmarks.quality import fill50k_flow
from tools.reports import ROOT
from zeroconv.training.recipes.recipe import load_recipe

RECIPE = ROOT / "recipes" / "fill50k-flow.yaml"


@pytest.mark.parametrize("name", fill50k_flow.VARIANTS)
def test_variant_of_the_flow_recipe_changes_what_it_names(name: str) -> None:
    ours = load_recipe(RECIPE).model_dump()
    other = load_recipe(RECIPE, fill50k_flow.VARIANTS[name]).model_dump()
    for setting in fill50k_flow.VARIANTS[name]:
        section, key = setting.partition("=")[0].split(".")
        other[section][key] = ours[section][key]
    assert other == ours


@pytest.mark.parametrize("name", ["fill50k-flow", "playroom-flow-canny", "playroom-flow-depth"])
def test_recipes_of_playroom_flow_copy_blocks_that_it_has(name: str) -> None:
    from zeroconv.scratch.flow.model import TRANSFORMER

    control = load_recipe(ROOT / "recipes" / f"{name}.yaml").control
    assert (control.blocks or 0) <= TRANSFORMER["num_layers"]
    assert (control.single_blocks or 0) <= TRANSFORMER["num_single_layers"]


@pytest.mark.slow
def test_a_try_goes_from_circles_to_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path / "cache"))
    base = write_untrained(tmp_path / "base")
    steps = ["steps=2", "warmup=1", "batch_size=2", "validate_every=2", "sample_count=0"]
    changes = [f"training.{step}" for step in steps] + ["data.validation_count=4"]
    changes += ["control.blocks=1", "control.single_blocks=1"]
    words = ["--base", str(base), "--data", str(tmp_path), "--out", str(tmp_path / "runs")]
    words += ["--variants", "ours,script", "--pictures", "32", "--count", "2", "--steps", "2"]
    sets = [word for change in changes for word in ("--set", change)]
    monkeypatch.setattr(sys, "argv", ["fill50k_flow", *words, *sets])
    fill50k_flow.main()
    shown = capfd.readouterr().out
    assert "both | " in shown and "hint gain at the end | " in shown
