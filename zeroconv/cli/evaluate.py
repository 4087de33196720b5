"""What `zeroconv evaluate` does: measure, write the report, show it as a table."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Any

from zeroconv.cli.generate import control_name
from zeroconv.files import atomic_write


def run(control: str, base: str, settings: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """The report of `zeroconv.evaluation.evaluate`, written to `out` too, or printed where `out` is "-"."""
    from zeroconv.evaluation import evaluate

    report = evaluate(control_name(control, base), base=base, **settings)
    text = jsonlib.dumps(report, indent=2) + "\n"
    if out is not None and str(out) != "-":
        with atomic_write(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    elif out is not None:
        sys.stdout.write(text)
    return report


def show(report: dict[str, Any]) -> None:
    """Print the report for a person: one line a metric, mean and 95% interval in every column."""
    from rich.console import Console
    from rich.table import Table

    names = list(report["n"])
    table = Table("", *(f"{name} (n={report['n'][name]})" for name in names))
    for metric, columns in report["metrics"].items():
        cells = (columns.get(name) for name in names)
        table.add_row(
            metric, *("–" if c is None else f"{c['mean']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells)
        )
    Console().print(table)
