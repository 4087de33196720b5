"""What the benchmarks share: a result file in the form that `benchmarks.figures` reads, and contact sheets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
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
    result = {"columns": list(columns), "rows": [list(row) for row in rows], "command": command, "note": note}
    with atomic_write(path or RESULTS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(" | ".join(columns))
    for row in rows:
        print(" | ".join(str(value) for value in row))
    print(note, flush=True)


def span(value: dict[str, float] | None, digits: int = 3) -> str:
    """Mean and 95% interval in a table cell."""
    if value is None:
        return "–"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def sheet(rows: Sequence[Sequence[Image.Image]], path: Path, scale: int = 1) -> None:
    """Rows of equal pictures as one PNG, two pixels apart."""
    width, height = (side * scale for side in rows[0][0].size)
    canvas = Image.new("RGB", (len(rows[0]) * (width + 2) - 2, len(rows) * (height + 2) - 2), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            canvas.paste(
                picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST),
                (x * (width + 2), y * (height + 2)),
            )
    with atomic_write(path) as temporary:
        canvas.save(temporary, quality=85)
