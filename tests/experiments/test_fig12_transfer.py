"""Figure 12 at its smallest: every case measured once, resumed, told in a table; verdicts that can
go either way.
"""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from experiments import fig12_transfer as fig12
from zeroconv.backbones.loading.locate import ASSETS

pytestmark = pytest.mark.skipif(
    not (ASSETS / "playroom").is_dir(), reason="the embedded base model is not there yet"
)


@pytest.mark.slow
def test_it_runs_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fig12, "RUNS", tmp_path)
    monkeypatch.setattr(fig12, "STEPS", 1)
    monkeypatch.setattr(fig12, "CONDITIONS", {"canny": "f1_1px"})
    words = [
        "fig12",
        "--count",
        "3",
        "--none",
        "2",
        "--out",
        str(tmp_path),
        "--pictures",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", words)
    real, calls = fig12.evaluate, []

    def counted(*args, **kwargs):
        calls.append(kwargs["data"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(fig12, "evaluate", counted)
    with pytest.raises(KeyboardInterrupt):
        fig12.main()
    (kept,) = tmp_path.glob("fig12-3-2-*.json")
    assert len(json.loads(kept.read_text())) == 2
    fig12.main()
    assert calls[2:] == [
        "playroom:test:3?style=pencil", "playroom:test:3?style=pencil",
        "playroom:test:3?style=night", "playroom:test:3?style=night",
    ]  # fmt: skip
    result = json.loads((tmp_path / "fig12.json").read_text())
    assert len(result["rows"]) == 5 and {len(row) for row in result["rows"]} == {
        len(result["columns"])
    }
    assert len(result["claims"]) == 2 and result["claims"][0]["ours"] in capsys.readouterr().out
    assert Image.open(tmp_path / "fig12.jpg").size == (4 + 6 * 132, 16 + 2 * 132)


def span(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


@pytest.mark.parametrize(
    ("plain", "moved", "verdicts"), [(0.6, 0.6, (True, False)), (0.22, 0.5, (False, True))]
)
def test_the_verdicts_follow_the_figures(plain, moved, verdicts):
    reached = {"unchanged": plain, "difference": moved}
    measured = {
        f"{c} {b} {m}": {
            "values": {"own": span(reached[m]), "shuffled": span(0.15), "none": span(0.2)}
        }
        for c, b, m in fig12.cases()
    }
    assert tuple(claim.agrees for claim in fig12.claims(measured)) == verdicts


def test_fig12_measures_a_trained_control_beside_transferred_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(fig12, "RUNS", tmp_path)
    words = [
        "fig12",
        "--count",
        "3",
        "--none",
        "2",
        "--anew",
        "7",
        "--out",
        str(tmp_path),
        "--pictures",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", words)
    (tmp_path / f"fig12-3-2-{fig12.weights_mark()}.json").write_text(
        json.dumps({"canny playroom-night unchanged": measured_at(0.5)})
    )
    seen = []

    def measure(models, condition, base, method, arguments):
        seen.append((base, method))
        return measured_at(0.6 if method == fig12.ANEW else 0.5)

    monkeypatch.setattr(fig12, "measure", measure)
    monkeypatch.setattr(fig12, "draw", lambda *args: None)
    fig12.main()
    assert (
        ("playroom-night", "unchanged") not in seen
        and ("playroom-night", fig12.ANEW) in seen
        and len(seen) == 6
    )
    result = json.loads((tmp_path / "fig12-anew.json").read_text())
    assert [row[2] for row in result["rows"]] == ["unchanged", "difference", fig12.ANEW] * 2
    (claim,) = result["claims"]
    assert not claim["agrees"] and "trained there" in claim["ours"]


def measured_at(reached: float) -> dict:
    values = {
        "own": span(reached),
        "shuffled": span(0.15),
        "none": span(0.2),
        "ceiling": span(0.8),
        "real": span(0.9),
    }
    tones = {"made": {"lightness": 50, "chroma": 20}, "style": {"lightness": 50, "chroma": 20}}
    return {
        "metric": "f1_1px",
        "values": values,
        "lift": {"over shuffled": span(reached - 0.15)},
        "tones": tones,
        "n": 3,
    }


def test_fig12_training_on_a_community_base_is_a_separate_run():
    pencil, night = (fig12.recipe_on(base, 7) for base in ("playroom-pencil", "playroom-night"))
    assert pencil.base == "playroom-pencil" and "style=pencil" in str(pencil.data.train)
    assert pencil.out != night.out and pencil.training.steps == 7
