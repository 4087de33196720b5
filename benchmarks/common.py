"""Shared by the benchmarks: result files in the form that `benchmarks.figures` reads, contact
sheets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tools.reports import ROOT, print_table, write_json
from zeroconv.files import atomic_write

RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"


def write_result(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    command: str,
    note: str = "",
    path: Path | None = None,
) -> None:
    """Print the table and write benchmarks/results/NAME.json, or `path`."""
    table = {"columns": list(columns), "rows": [list(row) for row in rows]}
    write_json(path or RESULTS / f"{name}.json", {**table, "command": command, "note": note})
    print_table(columns, rows, note)


def sheet(rows: Sequence[Sequence[Image.Image]], path: Path, scale: int = 1) -> None:
    """Rows of equal pictures as one PNG, two pixels apart."""
    width, height = (side * scale for side in rows[0][0].size)
    canvas = Image.new(
        "RGB", (len(rows[0]) * (width + 2) - 2, len(rows) * (height + 2) - 2), "white"
    )
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            canvas.paste(
                picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST),
                (x * (width + 2), y * (height + 2)),
            )
    with atomic_write(path) as temporary:
        canvas.save(temporary, quality=85)
