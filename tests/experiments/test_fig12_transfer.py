"""Figure 12 at its smallest: every case measured once, resumed, told in a table; a verdict that can go either way."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from experiments import fig12_transfer as fig12
from zeroconv.backbones.locate import ASSETS

pytestmark = pytest.mark.skipif(not (ASSETS / "playroom").is_dir(), reason="the embedded base model is not there yet")


def test_it_runs_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fig12, "RESULT", tmp_path / "fig12.json")
    monkeypatch.setattr(fig12, "PICTURE", tmp_path / "fig12.png")
    monkeypatch.setattr(fig12, "MAIN", {"canny": "f1_1px"})
    monkeypatch.setattr(sys, "argv", ["fig12", "--count", "3", "--none", "2", "--steps", "1"])
    real, calls = fig12.evaluate, []

    def counted(*args, **kwargs):
        calls.append(kwargs["data"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(fig12, "evaluate", counted)
    with pytest.raises(KeyboardInterrupt):
        fig12.main()
    assert len(json.loads(fig12.RESULT.read_text())["measured"]) == 2
    fig12.main()
    assert calls[2:] == [
        "playroom:test:3?style=pencil", "playroom:test:3?style=pencil",
        "playroom:test:3?style=night", "playroom:test:3?style=night",
    ]  # fmt: skip
    result = json.loads(fig12.RESULT.read_text())
    assert len(result["rows"]) == 5 and {len(row) for row in result["rows"]} == {len(result["columns"])}
    assert "gree" in result["finding"] and result["finding"] in capsys.readouterr().out
    assert Image.open(fig12.PICTURE).size == (6 * 132 - 4, 18 + 2 * 132 - 4)


def span(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


@pytest.mark.parametrize(("own", "verdict"), [(0.6, "Ours agrees"), (0.22, "Ours does not agree")])
def test_the_verdict_follows_the_figures(own, verdict):
    values = {"own": span(own), "shuffled": span(0.15), "none": span(0.2), "ceiling": span(0.5)}
    measured = {f"{c} {b} {m}": {"values": values} for c, b, m in fig12.cases()}
    assert verdict in fig12.finding(measured)
