"""A control trained on the 150 stickers of the repository, before and after.

python -m benchmarks.quality.stickers [--out runs/stickers-canny]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import PICTURES, RESULTS, sheet, write_result
from tools.reports import ROOT, read_json, span
from zeroconv.backbones import load_backbone
from zeroconv.control import ControlNet
from zeroconv.evaluation import evaluate
from zeroconv.evaluation.fidelity import Shown


def gains(log: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, validation figures) of a run, in order."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["step"], line["validation"]) for line in lines if "validation" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "stickers-canny")
    parser.add_argument("--count", type=int, default=60)
    arguments = parser.parse_args()
    recipe = str(ROOT / "recipes" / "stickers-canny.yaml")
    if not (arguments.out / "summary.json").exists():
        command = [
            str(Path(sys.executable).with_name("zeroconv")),
            "train",
            recipe,
            "--set",
            f"out={arguments.out}",
        ]
        subprocess.run(command, check=True)
    summary = read_json(arguments.out / "summary.json")
    backbone = load_backbone("playroom")
    before = ControlNet.from_backbone(backbone, condition="canny")
    options: dict[str, Any] = {
        "data": "stickers",
        "base": backbone,
        "count": arguments.count,
        "steps": 12,
        "varied": 0,
    }
    options["guidance"] = "resolution"
    untrained = evaluate(before, count_none=0, **options)["metrics"]["f1_1px"]
    shown: list[Shown] = []
    trained = evaluate(str(arguments.out / "control"), count_none=0, pictures=shown, **options)[
        "metrics"
    ]["f1_1px"]
    measured = gains(arguments.out / "log.jsonl")
    first, last = measured[0][1], measured[-1][1]
    rows = [
        [
            "hint gain (validation loss, another's hint − its own)",
            f"{first['gain']:.4f}",
            f"{last['gain']:.4f}",
        ],
        ["canny F1, 1 px, own hint", span(untrained["own"]), span(trained["own"])],
        ["canny F1, 1 px, another's hint", span(untrained["shuffled"]), span(trained["shuffled"])],
        ["ceiling (VAE)", "–", span(trained["ceiling"])],
    ]
    note = (
        f"{summary['steps']} steps of 32 in {summary['minutes']:.1f} minutes from the command "
        f"line; {arguments.count} compositions of the 60 stickers of held-out concepts, guidance "
        "`resolution`, cfg 4."
    )
    write_result(
        "stickers-training",
        ["", "before", "after"],
        rows,
        "python -m benchmarks.quality.stickers",
        note,
    )
    pairs, made = shown[0].pairs[:10], shown[0].made[:10]
    sheet(
        [[p.hint for p in pairs], made, [p.image for p in pairs]],
        PICTURES / "stickers-training.png",
    )
    shutil.copy(arguments.out / "log.jsonl", RESULTS / "stickers-training.jsonl")


if __name__ == "__main__":
    main()
