"""Why lite is close: every run is looked at where it should be; sentences agree only where
intervals are apart.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.common import MAIN
from experiments.lite import CENTRE, PROMPTS, claims, follow, runs_of, stats_of

STEPS = 8


def arguments(**changed) -> SimpleNamespace:
    plain = {
        "steps": STEPS,
        "rates": "3e-4,1e-3",
        "widths": "0.25",
        "train_batch": 2,
        "scenes": 8,
        "count": 4,
        "seed": 0,
    }
    return SimpleNamespace(**{**plain, **changed})


def results(lead: dict[tuple[float, int], float]) -> tuple[dict, dict]:
    """Full at 0.7 and lite behind it by `lead`, at every rate and step; what another's hint would
    give.
    """
    noise = np.random.default_rng(0).normal(0, 0.01, 50)
    followed, other = {}, {}
    for (rate, step), behind in lead.items():
        for name, level in (("full", 0.7), ("lite", 0.7 - behind)):
            followed[name, rate, step] = {setting: list(level + noise) for setting in PROMPTS}
            other[name, rate, step] = {setting: list(0.1 + noise) for setting in PROMPTS}
    return followed, other


def verdicts(lead: dict[tuple[float, int], float]) -> list[bool]:
    return [claim.agrees for claim in claims(*results(lead), MAIN["canny"], STEPS)]


EVERYWHERE = [(3e-4, STEPS), (CENTRE, STEPS // 2), (CENTRE, STEPS), (CENTRE, 2 * STEPS)]


def test_being_ahead_must_hold_at_every_rate_and_length() -> None:
    assert verdicts(dict.fromkeys(EVERYWHERE, 0.1)) == [True] * 5
    assert verdicts({**dict.fromkeys(EVERYWHERE, 0.1), (CENTRE, 2 * STEPS): 0.0}) == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert verdicts({**dict.fromkeys(EVERYWHERE, 0.1), (3e-4, STEPS): -0.1}) == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_lite_takes_each_kind_at_its_best_rate() -> None:
    claim = claims(
        *results({**dict.fromkeys(EVERYWHERE, 0.2), (3e-4, STEPS): 0.06}), MAIN["canny"], STEPS
    )[-1]
    assert (
        claim.agrees
        and "lite at 0.0003" in claim.ours
        and "+0.060" in claim.ours
        and "10% of what" in claim.ours
    )


def test_only_the_centre_is_trained_for_several_lengths() -> None:
    runs = runs_of(arguments())
    marks = {name: steps for name, (_, steps) in runs.items()}
    assert marks == {
        ("full", CENTRE): [4, 8, 16],
        ("lite", CENTRE): [4, 8, 16],
        ("full", 3e-4): [8],
        ("lite", 3e-4): [8],
        ("xs-0.25", CENTRE): [8],
    }
    recipes = {name: recipe for name, (recipe, _) in runs.items()}
    assert (
        recipes["lite", 3e-4].control.connections == "lite"
        and recipes["lite", 3e-4].training.learning_rate == 3e-4
    )
    assert (
        recipes["xs-0.25", CENTRE].control.kind == "controlnet_xs"
        and len({r.out for r in recipes.values()}) == 5
    )
    assert recipes["full", CENTRE].out != runs_of(arguments(count=5))["full", CENTRE][0].out


@pytest.mark.slow
def test_a_run_is_measured_at_its_stops_and_only_once(tmp_path, monkeypatch) -> None:
    from experiments.memory import Maker
    from zeroconv.backbones import load_backbone
    from zeroconv.evaluation.pairs import load_pairs

    monkeypatch.chdir(tmp_path)
    make = Maker(load_backbone("playroom"), tmp_path / "pictures", 4)
    pairs = load_pairs("playroom:test", "canny", 4, 128)
    recipe, _ = runs_of(arguments(steps=2, scenes=16))["lite", CENTRE]
    known = follow(recipe, [1, 2], pairs, make)
    assert set(known) == {1, 2} and known[1]["parameters"] > 1e6
    assert (
        set(stats_of(known[2])) == set(PROMPTS)
        and (recipe.out / "made-00002-empty-0.png").is_file()
    )
    assert follow(recipe, [1, 2], pairs, None) == known  # a maker would be asked for pictures
