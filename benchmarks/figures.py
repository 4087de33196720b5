"""Rewrite the tables of README.md and docs/ from benchmarks/results/*.json.

    python -m benchmarks.figures             rewrite them
    python -m benchmarks.figures --check     exit 1 if a page and the results disagree

A table stands between `<!-- figures:NAME -->` and `<!-- /figures -->` and is made of
benchmarks/results/NAME.json:
    {"columns": ["", "F1"], "rows": [["own hint", 0.61]], "command": "python -m …", "note": "…"}
A file without "rows" is read as a plain object: one line a key, or one row a key where the values
are objects. The table `summary` of the README is made of several results (benchmarks/summary.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import summary
from benchmarks.common import RESULTS
from tools.reports import ROOT, markdown_table, read_json, replace_blocks
from zeroconv.files import atomic_write


def rewrite(text: str, results: Path) -> str:
    """A page with every table made anew; a table without a result says so."""

    def body(name: str) -> str:
        if name == summary.NAME:
            return markdown_table(summary.summary(results))
        path = results / f"{name}.json"
        return markdown_table(read_json(path)) if path.is_file() else "*not measured yet*\n"

    return replace_blocks(text, "figures", body)


def pages() -> list[Path]:
    """Where tables may stand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(arguments: list[str]) -> int:
    stale = []
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = rewrite(old, RESULTS)
        if new != old:
            stale.append(page.name)
            if "--check" not in arguments:
                with atomic_write(page) as temporary:
                    temporary.write_text(new, encoding="utf-8")
    if stale and "--check" in arguments:
        print(
            f"{', '.join(stale)}: not what benchmarks/results says; run python -m "
            "benchmarks.figures",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
