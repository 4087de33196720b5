"""The README's table of five rows, made of benchmarks/results/*.json: how zeroconv compares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "summary"  # of the table's marker: <!-- figures:summary -->
COLUMNS = ["", "zeroconv", "compared with"]


def summary(results: Path) -> dict[str, Any]:
    """A result as `benchmarks.figures.table` takes it: one row a question.

    Raises:
        FileNotFoundError: a result that the table needs is missing.
        KeyError: a result has no row of that name.
    """
    rows = [_step(results), _memory(results), _parity(results), _resume(results), _control(results)]
    return {"columns": COLUMNS, "rows": rows}


def _step(results: Path) -> list[str]:
    card, processor = _rows(results, "train_step_h100"), _rows(results, "train_step")
    theirs, ours = card["bf16, diffusers' script"][0], card["bf16, zeroconv"][0]
    slow, fast = processor["bf16, diffusers' script"][0], processor["bf16, zeroconv"][0]

    return [
        "training step, SD 1.5, bf16",
        f"{_first(ours)} s on an H100, {_first(fast)} s on 2 CPU cores",
        f"diffusers' script: {_first(theirs)} s and {_first(slow)} s",
    ]


def _memory(results: Path) -> list[str]:
    rows = _rows(results, "train_step")
    ours, theirs = rows["bf16, zeroconv"][2], rows["bf16, diffusers' script"][2]

    return [
        "peak memory of that step (CPU)",
        f"{ours} GiB",
        f"diffusers' script: {theirs} GiB",
    ]


def _parity(results: Path) -> list[str]:
    rows = _rows(results, "parity")
    worst = max(float(error) for row in rows.values() for error in row[:2])

    return [
        "residuals and output, full size",
        f"largest relative error {worst:g}, {len(rows)} bases",
        "diffusers' modules (SD 1.5, 2.1, XL)",
    ]


def _resume(results: Path) -> list[str]:
    rows = _rows(results, "crash")
    kills = rows["kills"][0]
    same = rows["weights bit for bit the same"][0] == "yes"

    return [
        f"weights after {kills} kills (CPU)",
        "bit for bit the same" if same else "not the same",
        "the same run, never stopped",
    ]


def _control(results: Path) -> list[str]:
    followed, other, _, ceiling = _rows(results, "family")["canny, f1_1px, own caption"][:4]

    return [
        "edges followed, F1 within 1 px",
        f"{_first(followed)} on the playroom base",
        f"wrong hint: {_first(other)}; real pictures after the VAE: {_first(ceiling)}",
    ]


def _rows(results: Path, name: str) -> Mapping[str, list[Any]]:
    """Rows of a result by their first cell."""
    result = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    return {row[0]: row[1:] for row in result["rows"]}


def _first(cell: str) -> str:
    """The value of `0.786 [0.770, 0.801]`."""
    return cell.split(" ")[0]
