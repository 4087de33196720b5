"""What `zeroconv evaluate` does: measure, write the report and its page, show it as a table."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zeroconv.cli.generate import control_name
from zeroconv.files import atomic_write


def run(
    control: str,
    base: str,
    settings: dict[str, Any],
    out: Path | None,
    page: Path | None,
    lora: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """One report a prompt setting ("all": the paper's four), written to `out` too, or printed where `out` is "-".

    `page`: an HTML file; with several settings their names go before its suffix.
    """
    from zeroconv.backbones import load_backbone
    from zeroconv.evaluation import evaluate
    from zeroconv.evaluation.fidelity import Shown
    from zeroconv.evaluation.page import write_page

    asked = settings.pop("prompts")
    wanted = ("empty", "insufficient", "conflicting", "own") if asked == "all" else (asked,)
    backbone, reports = load_backbone(base, lora=lora), []
    for prompts in wanted:
        shown: list[Shown] = []
        report = evaluate(control_name(control, base), base=backbone, prompts=prompts, pictures=shown, **settings)
        reports.append(report)
        if page is not None:
            target = page if len(wanted) == 1 else page.with_stem(f"{page.stem}-{prompts}")
            with atomic_write(target) as temporary:
                temporary.write_text(write_page(report, shown[0]), encoding="utf-8")
    text = jsonlib.dumps(reports[0] if len(reports) == 1 else reports, indent=2) + "\n"
    if out is not None and str(out) != "-":
        with atomic_write(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    elif out is not None:
        sys.stdout.write(text)
    return reports


def show(report: dict[str, Any]) -> None:
    """Print the report for a person: one line a metric, mean and 95% interval in every column."""
    from rich.console import Console
    from rich.table import Table

    names = list(report["n"])
    table = Table(report["prompts"], *(f"{name} (n={report['n'][name]})" for name in names), "lift (over shuffled)")
    for metric, columns in report["metrics"].items():
        lift = report["lift"][metric].get("over shuffled")
        table.add_row(metric, *(_span(columns.get(name)) for name in names), _span(lift))
    for name, columns in {**report["pictures"], **report["caption"]}.items():
        if isinstance(columns, dict) and "mean" not in columns:
            table.add_row(name, *(_span(columns.get(column)) for column in names), "")
    Console().print(table)


def _span(value: dict[str, float] | None) -> str:
    return "–" if value is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
