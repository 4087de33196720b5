"""The rules of figures 5, 7 and 10, on measurements made up so that they hold, and so that they do
not.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from experiments import fig05_guidance as fig05
from experiments import fig07_no_prompt as fig07
from experiments import fig10_data_size as fig10

N = 24


def values(mean: float) -> list[float]:
    return [mean + 0.01 * (i % 3) for i in range(N)]


def guided(saturation: dict[str, float], fidelity: dict[str, float] | None = None) -> dict:
    """What every way of guidance measured, by its saturation (and clipped pixels, a hundredth of
    it).
    """
    results = {}
    for key in fig05.settings():
        name = f"{key[0]} {key[1]}"
        tone = saturation.get(name, saturation.get(key[1], 20.0))
        tones = [{"saturation": s, "clipped": s / 100, "contrast": 0.0} for s in values(tone)]
        results[key] = {"fidelity": values((fidelity or {}).get(key[1], 0.9)), "tones": tones}
    return results


def pictures(differ: int = 0) -> dict:
    grey = [Image.new("RGB", (8, 8), (100, 100, 100))] * N
    other = [Image.new("RGB", (8, 8), (100, 100 + differ, 100))] * N
    return {
        key: other if key[:2] == ("empty", "both") and key[2] > 1 else grey
        for key in fig05.settings()
    }


WILD = {"cond": 60.0, "both": 20.0, "resolution": 40.0, fig05.DIVIDED: 40.0, "guess": 40.0}


def verdicts(
    saturation: dict[str, float], fidelity: dict[str, float] | None = None, differ: int = 0
) -> list[bool]:
    return [
        c.agrees for c in fig05.claims(pictures(differ), guided(saturation, fidelity), "f1_1px")
    ]


@pytest.mark.filterwarnings("ignore")
def test_guidance_is_judged_by_the_tone_of_the_pictures() -> None:
    assert verdicts(WILD) == [True] * 7
    assert verdicts(WILD, differ=3)[0] is False
    assert verdicts({**WILD, "empty cond": 20.0})[1] is False  # no stronger than in both halves
    for index, mode in (
        (2, "empty resolution"),
        (3, "own resolution"),
        (4, fig05.DIVIDED),
        (5, "guess"),
    ):
        agreed = verdicts({**WILD, mode: 60.0})  # as strong as with weights of 1
        assert agreed[index] is False and sum(agreed) == 6
    assert verdicts(WILD, {"resolution": 0.8})[6] is False  # the hint is lost


def conditions(lift: float, kinds: float, without: float = 0.2) -> dict:
    """Two conditions of which the second is as told."""

    def span(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}

    def it(lift: float, kinds: float) -> dict:
        return {"lift": span(lift), "kinds": {"own": span(kinds), "without control": span(without)}}

    return {"canny": it(0.5, 0.9), "pose": it(lift, kinds)}


def test_every_condition_must_be_followed() -> None:
    assert [c.agrees for c in fig07.claims(conditions(0.2, 0.6))] == [True, True]
    # the interval holds 0
    assert [c.agrees for c in fig07.claims(conditions(0.04, 0.6))] == [False, True]
    # the intervals overlap
    assert [c.agrees for c in fig07.claims(conditions(0.2, 0.28))] == [True, False]


def sizes(small: float, large: float, least: float = 0.4, other: float = 0.2) -> dict:
    means = {100: least, 1000: small, 10_000: large}
    return {
        (size, setting): {"fidelity": values(mean), "another's": values(other)}
        for size, mean in means.items()
        for setting in fig10.PROMPTS
    }


def test_a_thousand_pictures_are_held_against_the_most_and_the_least_against_all() -> None:
    def verdicts(**levels: float) -> list[bool]:
        return [c.agrees for c in fig10.claims(sizes(**levels), [100, 1000, 10_000], "f1_1px")]

    assert verdicts(small=0.79, large=0.8) == [True, True]
    assert verdicts(small=0.4, large=0.8) == [False, True]
    assert verdicts(small=0.79, large=0.8, other=0.79) == [False, True]
    assert verdicts(small=0.79, large=0.8, least=0.8) == [True, False]


def test_margins_are_shares_of_what_is_reached() -> None:
    edge = 0.8 * (1 - fig10.MARGIN)
    assert fig10.claims(sizes(edge + 0.02, 0.8), [100, 1000, 10_000], "f1_1px")[0].agrees
    assert not fig10.claims(sizes(edge - 0.02, 0.8), [100, 1000, 10_000], "f1_1px")[0].agrees
    assert np.isclose(np.mean(values(0.5)), 0.51)
