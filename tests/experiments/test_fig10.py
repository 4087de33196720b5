"""Figure 10: sets of which a run sees no picture twice are one training, told once."""

from __future__ import annotations

from experiments.fig10_data_size import name_sets


def test_sets_that_no_run_exhausts_are_one() -> None:
    assert name_sets([100, 1000, 10_000, 50_000], 7680) == {
        100: "100 scenes", 1000: "1,000 scenes", 10_000: "10,000 or 50,000 scenes"
    }  # fmt: skip


def test_longer_runs_tell_them_apart() -> None:
    assert list(name_sets([100, 10_000, 50_000], 48_000)) == [100, 10_000, 50_000]
    assert list(name_sets([100, 1000], 7680)) == [100, 1000]
