"""The benchmark of growth measures real runs, and its sentence follows from its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed.growth import COLUMNS, main, verdict


@pytest.mark.slow
def test_a_small_round_is_measured(tmp_path: Path) -> None:
    words = [
        "--sizes",
        "24",
        "--rendered",
        "",
        "--steps",
        "5",
        "--repeats",
        "1",
        "--scratch",
        str(tmp_path),
    ]
    main([*words, "--json", str(tmp_path / "growth.json")])
    result = json.loads((tmp_path / "growth.json").read_text())
    (row,) = result["rows"]
    assert len(row) == len(COLUMNS) == len(result["columns"]) and row[0] == "24 in a folder"
    filling, start, start_cpu, data, step, step_cpu = map(float, row[1:7])
    assert start_cpu > data > 0 and start > 0 and filling > 0 and step > 0 and step_cpu > 0
    assert 50 < float(row[8]) < 5000
    # moments of 8 × 8 × 8 and text of one to three chunks of 16 × 32 float32, a hint of a byte
    # a pixel; headers and the empty prompt besides
    chunk = 16 * 32 * 4
    rest = 8 * 8 * 8 * 4 + 64 * 64
    assert rest + chunk < int(row[9].replace(",", "")) < rest + 3 * chunk + 2_000


def test_the_sentence_says_what_a_picture_costs() -> None:
    few = {"step_cpu": 10.0, "data": 1.0, "memory": 100.0}
    many = {"step_cpu": 11.0, "data": 3.0, "memory": 110.0}
    sentence = verdict(
        "folder", {("folder", 1000): few, ("folder", 101_000): many, ("rendered", 10): few}
    )
    assert (
        "× 1.10" in sentence
        and "+ 20.0 µs" in sentence
        and "+ 105 bytes" in sentence
        and "1,000 → 101,000" in sentence
    )
