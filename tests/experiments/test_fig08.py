"""Figure 8: a sentence for each baseline that was trained, and a paper's finding agrees only where
intervals are apart.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from experiments.common import MAIN
from experiments.fig08_ablation import PROMPTS, claims, networks
from experiments.sources import Source


def results(levels: dict[str, float]) -> dict:
    noise = np.random.default_rng(0).normal(0, 0.01, 50)
    kinds = [np.array([[3.0], [4.0]])] * 50
    stats = {
        name: {"fidelity": list(level + noise), "another's": list(0.1 + noise)}
        for name, level in levels.items()
    }
    return {
        (0, name, setting): {**stats[name], "kinds": kinds}
        for name in levels
        for setting in PROMPTS
    }


def test_only_trained_baselines_are_spoken_of() -> None:
    followed, behind, weak = claims(results({"full": 0.7, "lite": 0.5}), MAIN["canny"], 1)
    assert followed.agrees and behind.agrees and weak.agrees and "lite" in behind.ours
    _, behind, weak, worse, level = claims(
        results({"full": 0.7, "lite": 0.7, "gaussian": 0.5}), MAIN["canny"], 1
    )
    assert not behind.agrees and not weak.agrees and worse.agrees and not level.agrees


def test_being_behind_by_little_is_not_being_too_weak() -> None:
    _, behind, weak, worse, level = claims(
        results({"full": 0.7, "lite": 0.68, "gaussian": 0.67}), MAIN["canny"], 1
    )
    assert behind.agrees and not weak.agrees and "3%" in weak.ours
    assert worse.agrees and level.agrees


def test_fig08_sketches_have_separate_runs(monkeypatch) -> None:
    monkeypatch.setattr("experiments.fig08_ablation.trained", lambda recipe: None)

    def runs(condition: str) -> dict:
        arguments = SimpleNamespace(
            seeds=1, steps=8, train_batch=2, scenes=8, condition=condition, networks="full,lite"
        )
        return networks(arguments, Source("playroom", condition))

    canny, scribble = runs("canny"), runs("scribble")
    assert list(canny) == list(scribble) == [(0, "full"), (0, "lite")]
    assert (
        canny[0, "full"].data.condition == "canny"
        and scribble[0, "full"].data.condition == "scribble"
    )
    assert scribble[0, "lite"].control.connections == "lite"
    assert canny[0, "full"].out != scribble[0, "full"].out
