"""The measure of what training costs, on a tiny base: what trains in each case, and the table that
comes out.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.speed import cost
from tests.helpers.tiny import tiny_backbone
from tests.helpers.tiny_folder import save_backbone


@pytest.mark.parametrize("kind", cost.KINDS)
def test_a_step_changes_what_trains_and_nothing_else(kind: str) -> None:
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.unet.state_dict().items()}
    parameters, step = cost.make_step(kind, backbone, batch=2, size=128)
    old = [p.detach().clone() for p in parameters]
    # a ControlNet's copy hears of the loss after its zero convolutions have moved
    for _ in range(3):
        step()
    still = [p for p, o in zip(parameters, old, strict=True) if p.equal(o)]
    # what a norm of one channel a group, or attention to itself, cannot feel
    assert len(still) < 0.05 * len(old)
    changed = {
        name for name, value in backbone.unet.state_dict().items() if not value.equal(before[name])
    }
    decoder = {
        name for name in before if name.startswith(("up_blocks", "conv_norm_out", "conv_out"))
    }
    assert changed == {"control": set(), "decoder": decoder, "whole": set(before)}[kind]


@pytest.mark.slow
def test_operations_follow_from_what_is_differentiated(tmp_path: Path) -> None:
    """Backward costs as much as forward for the inputs and as much again for the weights, where
    each is wanted.
    """
    folder = str(tmp_path / "base")
    save_backbone(tmp_path / "base")
    control, decoder, model = (cost.measure(kind, folder, 2, 64, 1) for kind in cost.KINDS)
    assert decoder["flop"] < control["flop"] and decoder["flop"] < model["flop"]
    assert decoder["parameters"] < model["parameters"] and len(model["times"]) == 1


@pytest.mark.slow
def test_the_table_has_all_three_and_keeps_other_bases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for module in (common, cost):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    old = ["sd15, 2 × 256 px: a ControlNet", "361.3", *[""] * 8]
    (tmp_path / "cost.json").write_text(json.dumps({"rows": [old]}))
    save_backbone(tmp_path / "base")
    words = [
        "--base",
        str(tmp_path / "base"),
        "--steps",
        "2",
        "--rounds",
        "1",
        "--json",
        str(tmp_path / "all.json"),
    ]
    cost.main(words)
    first = json.loads((tmp_path / "cost.json").read_text())
    assert [len(row) for row in first["rows"]] == [len(first["columns"])] * 4 and old in first[
        "rows"
    ]
    report = json.loads((tmp_path / "all.json").read_text())
    control, model = report["summary"]["control"], report["summary"]["whole"]
    row = next(row for row in first["rows"] if row[0].endswith("the whole UNet"))
    assert row[-3:] == [
        f"{control[name] / model[name]:.2f}" for name in ("seconds", "memory", "flop")
    ]
    assert all(
        one["memory"] > 0 and len(one["times"]) == 2
        for runs in report["runs"].values()
        for one in runs
    )
    assert "round 1/1 decoder" in capsys.readouterr().out
    # measured again, its own rows give way
    assert cost.kept_rows(f"{tmp_path / 'base'}, 2 × 64 px") == [old]
