"""The rules of figures 4 and 11, on answers made up so that they hold, and so that they do not."""

from __future__ import annotations

from types import SimpleNamespace

from experiments import fig11_ambiguous as fig11
from experiments import following as fig04
from zeroconv.playroom import KINDS


def run(batch: int, start: int, rise: tuple[int, int], steps: int = 120) -> dict:
    # scatters, and does not fall
    loss = [(s, 0.25 + 0.01 * (s // 5 % 2)) for s in range(5, steps + 1, 5)]
    return {
        "start": SimpleNamespace(step=start),
        "rise": rise,
        "batch": batch,
        "loss": loss,
        "steps": steps,
    }


def test_sudden_is_judged_by_the_quiet_before_it_and_not_by_the_run_s_length() -> None:
    for steps, start, agrees in ((120, 60, True), (600, 30, False)):
        sudden, hidden, _ = fig04.claims({"a": run(32, start, (start, start + 45), steps)})
        assert sudden.agrees is agrees and hidden.agrees


def test_batch_sizes_whose_runs_overlap_decide_nothing() -> None:
    seeds = {"a": run(32, 25, (30, 60)), "b": run(32, 35, (30, 60))}
    assert not fig04.claims({**seeds, "c": run(8, 35, (45, 75))})[2].agrees
    assert fig04.claims({**seeds, "c": run(8, 40, (45, 75))})[2].agrees


def answers(obeys: bool, varied: bool) -> dict[str, dict[str, list[str]]]:
    by_shape = {}
    for shape in fig11.SHAPES:
        first, second = fig11.FITS.get(shape, (fig11.PLAIN.get(shape), None))
        plain = [second if varied and second and i % 2 else first for i in range(48)]
        named = {kind: [kind if obeys else first] * 24 for kind in KINDS}
        by_shape[shape] = {"": plain, **named, "without control": [fig11.NOTHING] * 48}
    return by_shape


def test_a_prompt_settles_it_only_where_the_kind_that_does_not_come_by_itself_comes() -> None:
    assert [c.agrees for c in fig11.claims(answers(obeys=True, varied=True))] == [True] * 4
    something, plain, several, settled = fig11.claims(answers(obeys=False, varied=False))
    assert something.agrees and plain.agrees and not several.agrees and not settled.agrees


def test_pictures_of_one_hint_are_one_thing_that_was_drawn() -> None:
    half = ["ball"] * fig11.SEEDS + ["cube"] * fig11.SEEDS  # two hints, each of one mind
    assert fig11.by_hint([float(a == "ball") for a in half]) == [1.0, 0.0]
    assert fig11.share(half, "ball") == {"mean": 0.5, "low": 0.0, "high": 1.0}
