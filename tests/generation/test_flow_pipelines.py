"""Pictures of every family of diffusion transformers, against diffusers' own pipelines: prompts,
hints and VAE included, from one folder. Weights are random, and so are connections.
"""

from __future__ import annotations

import pytest

from tests.helpers.flow_parity import CASES, Pair

CLOSE = 1e-3  # a pixel, of [0, 1]
QUICK = [("flux", "one control")]
SLOW = [
    (family, case)
    for family, cases in CASES.items()
    for case in cases
    if (family, case) not in QUICK
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Made when they are first asked for."""

    class Made(dict[str, Pair]):
        def __missing__(self, name: str) -> Pair:
            self[name] = Pair(name, tmp_path_factory.mktemp(name))
            return self[name]

    return Made()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("family", "case"), QUICK)
def test_flow_pictures_equal_the_pipelines_of_diffusers(
    pairs: dict[str, Pair], family: str, case: str
) -> None:
    ours, theirs = CASES[family][case](pairs[family], 2)
    assert ours.std() > 0.02 and (ours - theirs).abs().max() < CLOSE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("family", "case"), SLOW)
def test_flow_pictures_of_eight_steps_equal_the_pipelines_of_diffusers(
    pairs: dict[str, Pair], family: str, case: str
) -> None:
    ours, theirs = CASES[family][case](pairs[family], 8)
    assert ours.std() > 0.02 and (ours - theirs).abs().max() < CLOSE


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_flow_pictures_differ_with_their_control(pairs: dict[str, Pair]) -> None:
    """What the comparisons rest on: without the control the picture is another."""
    pair = pairs["flux"]
    controlled, _ = CASES["flux"]["one control"](pair, 2)
    assert (controlled - pair.ours([], 2)).abs().max() > 0.05
