"""What the experiments share: options, results in the form that `experiments.page` reads, claims
and their verdicts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.memory import Maker
from tools.reports import ROOT, print_table, read_json, signed, span, write_json
from zeroconv.backbones import load_backbone
from zeroconv.layers.allocator import keep_pages

RESULTS = ROOT / "experiments" / "results"
PICTURES = ROOT / "docs" / "pictures" / "paper"
# of the folder where the command is given: weights and pictures of unfinished figures
RUNS = Path("runs/paper")

# the figure that a condition is judged by, of those that `conditions.scores` has
MAIN = {
    "canny": "f1_1px",
    "lines": "f1_1px",
    "softedge": "ms_ssim",
    "scribble": "f1_1px",
    "pose": "pck",
    "segmentation": "miou",
    "depth": "si_rmse",
    "normal": "angle",
    "lineart": "ms_ssim",
}


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper that numbers can answer, and what they say."""

    paper: str
    ours: str
    agrees: bool


def options(doc: str | None, count: int, **more: Any) -> argparse.Namespace:
    """The options every figure has, and its own: `steps=(240, "of training")`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count", type=int, default=count, help=f"pictures a row of the table ({count})"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="make every picture anew, whatever is kept"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="pictures made at a time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument(
        "--pictures", type=Path, default=PICTURES, help="folder of the contact sheet"
    )
    for name, (value, meaning) in more.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            help=f"{meaning} ({value})",
        )
    return parser.parse_args()


def maker_of(arguments: argparse.Namespace) -> Maker:
    """The playroom's base with memory, as the options say."""
    keep_pages()  # sampling frees and takes the same memory at every step
    return Maker(
        load_backbone("playroom"), RUNS / "pictures", arguments.batch_size, arguments.fresh
    )


def write_result(
    figure: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    claims: Sequence[Claim],
    *,
    note: str,
    pictures: Sequence[str] = (),
    details: Any = None,
    maker: Maker | None = None,
    made: tuple[int, float] | None = None,
    command: str | None = None,
    folder: Path = RESULTS,
) -> Path:
    """Print table and verdicts, and write FOLDER/FIGURE.json.

    `pictures`: files in docs/pictures/paper, with their captions as "name.jpg: what it shows".
    `details`: whatever the table was made of. `maker`: whose pictures were used, for the time they
    cost; or `made`: how many, and CPU seconds.
    """
    result: dict[str, Any] = {
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "claims": [asdict(claim) for claim in claims],
        "pictures": list(pictures),
        "command": command
        or " ".join(["zeroconv reproduce", figure.removesuffix("-tiny"), *shown_options()]),
        "note": note,
    }
    if maker is not None:
        made = len(maker.costs), sum(maker.costs.values())
    if made is not None:
        result["made"] = {"pictures": made[0], "cpu_minutes": round(made[1] / 60, 1)}
    if details is not None:
        result["details"] = details
    path = folder / f"{figure}.json"
    kept = 0.0 if "--fresh" in sys.argv else before(path, result["command"])
    result["call_cpu_minutes"] = max(call_minutes(), kept)
    write_json(path, result)

    print_table(columns, rows, note)
    for claim in claims:
        print(
            f"paper: {claim.paper}\n ours: {claim.ours}\n    → "
            f"{'agrees' if claim.agrees else 'DOES NOT AGREE'}"
        )
    if made is not None:
        print(f"{made[0]} pictures, {made[1] / 60:.1f} CPU minutes", flush=True)
    return path


def call_minutes() -> float:
    """Processor minutes of this process and of those it started and waited for."""
    return round(sum(os.times()[:4]) / 60, 1)


def before(path: Path, command: str) -> float:
    """What the same command took when it had most to do: a later call finds trainings and pictures
    kept.
    """
    old = read_json(path) if path.is_file() else {}
    return float(old.get("call_cpu_minutes", 0)) if old.get("command") == command else 0.0


def shown_options() -> list[str]:
    """The options this figure was made with, but for those that say only where it goes."""
    words = sys.argv[1:] if Path(sys.argv[0]).stem.startswith("fig") else []
    places = {
        i + k for i, word in enumerate(words) if word in ("--out", "--pictures") for k in (0, 1)
    }
    return [word for i, word in enumerate(words) if i not in places and word != "--fresh"]


__all__ = [
    "MAIN",
    "PICTURES",
    "RESULTS",
    "ROOT",
    "RUNS",
    "Claim",
    "maker_of",
    "options",
    "signed",
    "span",
    "write_result",
]
