"""Rewrite the tables of README.md and docs/ from benchmarks/results/*.json, so that no figure is copied by hand.

    python -m benchmarks.figures             rewrite them
    python -m benchmarks.figures --check     exit 1 if a page and the results disagree

A table stands between `<!-- figures:NAME -->` and `<!-- /figures -->` and is made of benchmarks/results/NAME.json:
    {"columns": ["", "canny F1"], "rows": [["true hint", 0.61]], "command": "zeroconv evaluate …", "note": "…"}
A file without "rows" is read as a plain object: one line a key, or one row a key where the values are objects.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroconv.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- figures:([\w.-]+) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)
_ASIDE = ("command", "note", "machine", "date")


def table(result: Mapping[str, Any]) -> str:
    """A result as a Markdown table, with the command that made it and its note below."""
    columns, rows = _columns_and_rows(result)
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    text = "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"
    aside = [f"Made by `{result['command']}`." if result.get("command") else "", str(result.get("note") or "")]
    aside = [part for part in aside if part]
    return text + ("\n" + " ".join(aside) + "\n" if aside else "")


def _columns_and_rows(result: Mapping[str, Any]) -> tuple[list[Any], list[list[Any]]]:
    if "rows" in result:
        return list(result.get("columns") or [""] * len(result["rows"][0])), [list(row) for row in result["rows"]]
    facts = {key: value for key, value in result.items() if key not in _ASIDE}
    nested = {key: value for key, value in facts.items() if isinstance(value, Mapping)}
    if nested and len(nested) == len(facts):
        names = list(dict.fromkeys(name for value in nested.values() for name in value))
        return ["", *names], [[key, *(value.get(name) for name in names)] for key, value in nested.items()]
    return ["", "value"], [[key, value] for key, value in facts.items() if not isinstance(value, Mapping | list)]


def cell(value: Any) -> str:
    """Three digits that count for a number; a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|")
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rewrite(text: str, results: Path) -> str:
    """A page with every table made anew; a table without a result says so."""

    def block(match: re.Match[str]) -> str:
        path = results / f"{match[2]}.json"
        body = table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else "*not measured yet*\n"
        return f"{match[1]}{body}{match[4]}"

    return BLOCK.sub(block, text)


def pages() -> list[Path]:
    """Where tables may stand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(arguments: list[str]) -> int:
    stale = []
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = rewrite(old, ROOT / "benchmarks" / "results")
        if new != old:
            stale.append(page.name)
            if "--check" not in arguments:
                with atomic_write(page) as temporary:
                    temporary.write_text(new, encoding="utf-8")
    if stale and "--check" in arguments:
        print(
            f"{', '.join(stale)}: not what benchmarks/results says; run python -m benchmarks.figures", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
