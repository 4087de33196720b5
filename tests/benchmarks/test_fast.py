"""The figures of approximate modes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.quality import fast as benchmark
from benchmarks.quality.fast import Mode, average, lost
from benchmarks.quality.fast_operations import Loop, decodings
from benchmarks.quality.fast_search import Point, best, front, grid, rows
from zeroconv.errors import UserError
from zeroconv.generation.saving import EXACT, Fast, presets


@pytest.mark.parametrize(
    ("metric", "exact", "made", "expected"),
    [("ms_ssim", 0.8, 0.6, 25.0), ("angle", 10.0, 11.0, 10.0), ("ms_ssim", 0.5, 0.5, 0.0)],
)
def test_fidelity_lost_is_positive_where_a_figure_is_worse(metric, exact, made, expected):
    figures = lost([exact] * 3, [made] * 3, metric)
    assert figures == pytest.approx({"mean": expected, "low": expected, "high": expected})


def test_fidelity_lost_is_averaged_over_conditions():
    losses = [{"mean": 1.0, "low": -2.0, "high": 4.0}, {"mean": 3.0, "low": -1.0, "high": 7.0}]
    assert average(losses) == pytest.approx((2.0, 2.5))  # hypot(3, 4) / 2


def test_search_has_every_combination_of_its_grid_but_the_exact_one() -> None:
    made = grid(["deep=1/2", "merge=0/0.5", "vae=full/tiny"])
    assert len(made) == len(set(made)) == 7 and EXACT not in made
    assert Fast(deep=2, merge=0.5, vae="tiny") in made
    assert len(grid()) == 47
    for wrong in (["deep"], ["deep=1", "deep=2"], ["colour=1/2"], ["deep=0/1"], ["deep="]):
        with pytest.raises(UserError):
            grid(wrong)


def test_search_keeps_what_no_other_combination_beats() -> None:
    a = Point(Fast(deep=2), 2.0, 1.5, 0.5, 0.1)
    b = Point(Fast(deep=3), 3.0, 1.4, 0.9, 0.1)
    beaten = Point(Fast(branch=2), 1.5, 1.2, 0.6, 0.1)
    wild = Point(Fast(deep=9), 4.0, 1.3, 5.0, 0.1)
    points = [beaten, wild, b, a]
    assert front(points, "operations") == [a, b, wild] and front(points, "time") == [a]
    same = Point(Fast(deep=2, branch=2), 2.0, 1.5, 0.5, 0.1)
    assert front([a, same], "operations") == [a, same]
    assert [row[-1] for row in rows(points)] == ["operations, time", "operations", "operations"]
    assert best(points) == {"deep": 3} and best(points, "time") == {"deep": 2}
    assert best([wild]) == {}


def test_search_prints_the_front_and_the_best(monkeypatch, capsys, tmp_path) -> None:
    """Nothing is generated or counted here: the figures are given."""

    class Counted:
        def __init__(self, steps: int) -> None: ...

        def decoded(self, fast: Fast) -> float:
            return fast.deep + (0.5 if fast.vae == "tiny" else 0)

    def measured(backbone, condition, modes, measured, arguments) -> None:
        for name, mode in measured.items():
            value = 4.0 if "tiny" in name else 0.5
            mode.losses[condition] = {"mean": value, "low": value - 1, "high": value + 1}
            mode.exact, mode.seconds = 2.0, 1.0

    out = tmp_path / "search.json"
    words = ["fast", "--search", "--count", "2", "--conditions", "canny", "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*words, "--grid", "deep=1/2", "vae=full/tiny"])
    monkeypatch.setattr(benchmark, "Operations", Counted)
    monkeypatch.setattr(benchmark, "measure", measured)
    monkeypatch.setattr(benchmark, "load_backbone", lambda name: SimpleNamespace())
    monkeypatch.setattr(benchmark, "embedded_tiny_vae", lambda backbone: "a decoder")
    benchmark.main()
    printed = capsys.readouterr().out
    assert "best of at most 1% lost, by operations: {'deep': 2}" in printed
    assert '"deep=2, vae=tiny"' in out.read_text() and "3 combinations" in out.read_text()
    assert Mode(losses={"a": {"mean": 1.0}, "b": {"mean": 2.0}}).worst() == "b 2.0"


def test_modes_with_a_small_decoder_are_left_out_where_there_is_none(monkeypatch, capsys) -> None:
    monkeypatch.setattr(benchmark, "embedded_tiny_vae", lambda backbone: None)
    modes = {"a": "deep=2", "b": "deep=2,vae=tiny", "c": "x2"}
    kept = benchmark.with_decoder(SimpleNamespace(), modes, None)
    assert list(kept) == ["a", "c"] and "1 modes with vae=tiny" in capsys.readouterr().out


@pytest.mark.slow
def test_merged_tokens_and_the_small_decoder_save_operations() -> None:
    loop = Loop()
    fewer = loop.count(EXACT, 1) / loop.count(Fast(merge=0.5), 1)
    assert fewer == pytest.approx(1.11, abs=0.01)
    assert loop.count(Fast(merge=0.5, exact=1.0), 2) == loop.count(EXACT, 2)
    large, small = decodings()
    assert large == pytest.approx(2.51e12, rel=0.01) and large / small > 15


@pytest.mark.slow
def test_presets_save_the_operations_that_they_are_named_by():
    loop = Loop()
    # published sizes: UNet 803 and ControlNet 283 − 15 GFLOP, on both halves of guidance
    assert loop.count(EXACT, 1) == pytest.approx(2 * (803 + 268) * 1e9, rel=0.02)
    whole = loop.count(EXACT, 20)
    for name, fast in presets().items():
        assert whole / loop.count(fast, 20) >= float(name.removeprefix("x"))
