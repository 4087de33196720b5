"""Runs of an experiment: each in a folder of its own, resumable, and the same whether they pause or
not.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.training import gains, identity, prepare, read_summary, stages, trained
from tests.helpers.tiny_folder import save_backbone
from tests.training.conftest import make_pictures
from zeroconv.control import ControlNet
from zeroconv.training import train
from zeroconv.training.recipes.recipe import Recipe, parse_recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_backbone(folder / "base")
    (folder / "pictures").mkdir()
    make_pictures(folder / "pictures", 40)
    return folder


def recipe(tiny: Path, out: Path, steps: int) -> Recipe:
    return parse_recipe(
        {
            "out": str(out),
            "base": str(tiny / "base"),
            "device": "cpu",
            "control": {"hint_widths": [4, 8, 8, 8]},
            "data": {
                "train": [str(tiny / "pictures")],
                "condition": "depth",
                "size": 64,
                "cache": str(tiny / "cache"),
                "workers": 1,
            },
            "training": {
                "steps": steps,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "validate_every": 2,
                "sample_count": 0,
                "ema_decay": 0.5,
            },
        }
    )


def test_a_run_is_named_by_what_its_recipe_says(tiny: Path, tmp_path: Path) -> None:
    one = recipe(tiny, tmp_path, 4)
    # no defaults,
    assert identity(one)["training"] == {"batch_size": 2, "learning_rate": 1e-3, "ema_decay": 0.5}
    # nothing that may change
    assert identity(one)["data"]["size"] == 64 and "cache" not in identity(one)["data"]
    other = one.model_copy(update={"training": one.training.model_copy(update={"seed": 1})})
    assert identity(other) != identity(one)


def weights(trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.parameters]


@pytest.mark.slow
def test_a_run_that_pauses_and_is_cut_is_the_run_that_does_not(tiny: Path, tmp_path: Path) -> None:
    uncut = {
        mark: weights(trainer) for mark, trainer in stages(recipe(tiny, tmp_path / "a", 6), [6])
    }
    cut = recipe(tiny, tmp_path / "b", 6)
    for mark, _ in stages(cut, [0, 2, 4, 6]):
        if mark == 4:
            break  # as if killed while its pictures were made
    seen = {mark: weights(trainer) for mark, trainer in stages(cut, [0, 2, 4, 6])}
    assert list(seen) == [4, 6]
    assert all(torch.equal(x, y) for x, y in zip(seen[6], uncut[6], strict=True))
    assert [step for step, _, _ in gains(cut.out)] == [0, 2, 4, 6]


def test_what_is_trained_is_not_trained_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("experiments.training.train", lambda r: (asked.append(r.out), train(r)))
    one = recipe(tiny, tmp_path / "one", 2)
    folder = trained(one)
    assert (
        read_summary(one.out)["steps"] == 2
        and ControlNet.load(folder).config["zeroconv"]["condition"] == "depth"
    )
    assert trained(one) == folder and asked == [one.out]


def test_runs_of_other_settings_have_other_folders() -> None:
    base = prepare("fig08", "full", 0, 8)
    others = [
        prepare("fig08", "full", 1, 8),
        prepare("fig08", "full", 0, 9),
        prepare("fig08", "full", 0, 8, training__batch_size=4),
        prepare("fig08", "full", 0, 8, control__connections="gaussian"),
    ]
    assert len({recipe.out for recipe in (base, *others)}) == 5
    assert others[3].control.connections == "gaussian" and base.training.batch_size == 32
    assert prepare("fig08", "full", 0, 8).out == base.out
