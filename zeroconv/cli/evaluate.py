"""`zeroconv evaluate`: the report of `zeroconv.evaluation.evaluate` as a table, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zeroconv.files import atomic_write

COLUMNS = ("own", "shuffled", "none", "ceiling")


def run(control: str, path: Path | None, **options: Any) -> dict[str, Any]:
    """Evaluate, print, and write the report to `path` where one is given."""
    from zeroconv.evaluation import evaluate

    report = evaluate(control, **options)
    show(report)
    if path is not None:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
    return report


def show(report: dict[str, Any]) -> None:
    """One row a metric, mean and 95% interval a column."""
    table = Table(title=f"{report['control']} on {report['data']}, prompts: {report['prompts']}")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(f"{column} (n={report['n'].get(column, 0)})")
    for metric, values in report["metrics"].items():
        table.add_row(metric, *(cell(values.get(column)) for column in COLUMNS))
    Console().print(table)


def cell(value: dict[str, float] | None) -> str:
    return "–" if value is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
