"""The proof of a killed run must be able to fail: one number, one example, one loss that differs is
told.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.robustness import crash
from benchmarks.robustness.crash import Kills, Run, add_column, compare
from zeroconv.training.checkpoint import save_checkpoint


def ended(folder: Path, name: str, **changes: Any) -> Run:
    """What a run of two processes leaves, without training it."""
    run = Run(folder, name, processes=2, steps=2)
    values = {"weight": 1.0, "moment": 2.0, "loss": 0.5, "second": [2, 3], **changes}
    state = {
        "control": {"w": torch.tensor([values["weight"], 0.0])},
        "ema": {"shadow": [torch.ones(2)]},
        "optimizer": {"state": {0: {"m": torch.tensor([values["moment"]]), "step": 2}}},
    }
    save_checkpoint(folder / name / "checkpoints", 2, state, keep=2)
    lines = [{"step": 1, "loss": values["loss"]}, {"step": 2, "validation": {}}]
    (folder / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for rank in (0, 1):
        # step 1 was begun, cut short in the middle of the note, and taken again
        notes = ["", "[0, [0, 1]]", "[1, [2,", "", json.dumps([1, values["second"]])]
        (folder / f"{name}-taken-{rank}").write_text("\n".join(notes) + "\n")
    return run


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({}, None),
        ({"weight": 1.0 + 1e-6}, "weights bit for bit the same"),
        ({"moment": 2.5}, "optimiser"),
        ({"second": [3, 2]}, "examples of every step, each time it was taken"),
        ({"loss": 0.25}, "every logged loss"),
    ],
)
def test_crash_comparison_names_what_differs(
    tmp_path: Path, change: dict, fact: str | None
) -> None:
    kills = Kills(random.Random(0), fell_back=[0, 1], alone=1, survived=0.42)
    facts = compare(ended(tmp_path, "straight"), ended(tmp_path, "killed", **change), kills)
    assert [name for name, value in facts.items() if value == "NO"] == ([fact] if fact else [])
    assert facts["kills"] == 2 and facts["of these, of one process alone"] == 1
    expected = {"weights bit for bit the same": 1e-6, "optimiser": 0.5}.get(fact or "", 0.0)
    assert facts["largest difference in these"] == pytest.approx(expected, rel=0.1)


def test_a_column_joins_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.common.RESULTS", tmp_path)
    facts = {"kills": 20, "optimiser": "yes"}
    add_column("two processes", facts, 150)
    add_column("one process", facts | {"kills": 3}, 150)
    add_column("two processes", facts | {"optimiser": "NO"}, 150)
    result = json.loads((tmp_path / "crash.json").read_text())
    assert result["columns"] == ["", "one process", "two processes"]
    assert result["rows"] == [["kills", 3, 20], ["optimiser", "yes", "NO"]]
