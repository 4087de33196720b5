"""Figure 4 with the released settings: its runs, its verdicts, and a run that ends early."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import plateau as fig
from experiments import training
from experiments.following import Followed


def ran(step: int | None, batch: int = 32) -> dict[str, Any]:
    start = None if step is None else SimpleNamespace(step=step)
    loss = [(float(i), 0.3) for i in range(0, 1500, 10)]
    return {"start": start, "rise": (step or 0, (step or 0) + 50), "batch": batch, "loss": loss,
            "steps": 1500}  # fmt: skip


def test_the_ladder_changes_one_setting_at_a_time() -> None:
    arguments = SimpleNamespace(
        batches="8,128", steps=1500, every=50, validate_every=10, count=2, scenes=64
    )
    recipes = fig.recipes_of(arguments)
    assert len(recipes) == 6 and len({recipe.out for recipe, _ in recipes.values()}) == 6
    names = [f"{name}, batch {fig.BATCH}" for name in fig.LADDER]
    dumped = [recipes[name][0].model_dump(exclude={"out"}) for name in names]
    for before, after in pairwise(dumped):
        changed = [
            (part, key)
            for part in ("control", "training", "data")
            for key in before[part]
            if before[part][key] != after[part][key]
        ]
        assert len(changed) == 1, changed
    assert recipes["released, batch 8"][0].control.hint_init == "torch"
    assert recipes[names[-1]][0].training.optimizer == "muon"


def test_verdicts_name_the_change_that_removes_the_plateau() -> None:
    starts = {"released": 900, "ten times the rate": 700, "contrast kept": 60, "Muon: ours": 40}
    followed = Followed()
    followed.results = {f"{name}, batch 32": ran(step) for name, step in starts.items()}
    followed.results |= {"released, batch 8": ran(1200, 8), "released, batch 128": ran(None, 128)}
    *papers, ours = fig.verdicts(followed)
    assert [claim.agrees for claim in papers] == [True, True, False]
    assert all(claim.paper.endswith("with the released settings") for claim in papers)
    assert "contrast kept" in ours.paper and ours.agrees


def test_looks_end_where_enough_was_seen(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Swapped:
        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...

    trainer = SimpleNamespace(
        ema=SimpleNamespace(swapped=Swapped),
        control=SimpleNamespace(eval=lambda: None, train=lambda: None),
    )
    monkeypatch.setattr(training, "stages", lambda recipe, marks: ((m, trainer) for m in marks))

    def look(mark: int, trainer: Any) -> dict[str, Any]:
        seen.append(mark)
        return {"own": mark}

    recipe: Any = SimpleNamespace(out=tmp_path)
    for _ in range(2):  # the second reads what the first kept
        known = training.looks(recipe, [0, 50, 100, 150], look, lambda mark: mark >= 100)
        assert list(known) == [0, 50, 100] and known[100] == {"own": 100}
    assert seen == [0, 50, 100]
