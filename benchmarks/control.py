"""Is the hint followed? Edges on scenes and on stickers of held-out concepts, depth on scenes.

python -m benchmarks.control [canny] [depth] [--count 200] [--stickers FOLDER]
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common import PICTURES, sheet, span, write_result
from zeroconv.backbones import load_backbone
from zeroconv.evaluation import evaluate

COLUMNS = ("own", "shuffled", "none", "ceiling")


def measure(control: str, data: str, name: str, arguments: argparse.Namespace, backbone: Any) -> list[list[Any]]:
    """One table row a prompt setting and metric; draws best, median and worst pictures."""
    rows = []
    for prompts in ("own", "empty"):
        shown: dict[str, Any] = {}
        report = evaluate(
            control, data=data, base=backbone, count=arguments.count, count_none=arguments.none, prompts=prompts,
            steps=arguments.steps, pictures=shown,
        )  # fmt: skip
        for metric, values in report["metrics"].items():
            caption = "own caption" if prompts == "own" else "no prompt"
            row = [f"{metric}, {caption}", *(span(values.get(column)) for column in COLUMNS)]
            if metric.startswith("f1"):
                own = values["own"]["mean"]
                row += [f"{own / values['ceiling']['mean']:.0%}", f"{own / values['shuffled']['mean']:.1f}×"]
            rows.append([f"{data.partition(':')[0]}: {row[0]}", *row[1:]])
            print(rows[-1], flush=True)
        draw(shown, f"{name}-{prompts}", rising=control.endswith("depth"))
    return rows


def draw(shown: dict[str, Any], name: str, rising: bool) -> None:
    """Four best, four median and four worst: hint above picture above the real one."""
    key = next(reversed(shown["scores"][0]))
    order = sorted(range(len(shown["made"])), key=lambda i: shown["scores"][i][key], reverse=not rising)
    middle = len(order) // 2
    chosen = [*order[:4], *order[middle - 2 : middle + 2], *order[-4:]]
    pairs, made = shown["pairs"], shown["made"]
    sheet(
        [[pairs[i].hint for i in chosen], [made[i] for i in chosen], [pairs[i].image for i in chosen]],
        PICTURES / f"{name}.png",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", default=["canny", "depth"])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--none", type=int, default=50, help="pictures made without control")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--stickers", default="", help="folder of `zeroconv playroom stickers`; the sample otherwise")
    arguments = parser.parse_args()
    backbone = load_backbone("playroom")
    tail = (
        f"n = {arguments.count} (no control: {arguments.none}), {arguments.steps} UniPC steps, guidance `resolution`, "
        "cfg 4; 95% bootstrap intervals."
    )
    settings = f"--count {arguments.count} --none {arguments.none} --steps {arguments.steps}"
    settings += " --stickers data/stickers" if arguments.stickers else ""
    columns = ["", "own hint", "another's hint", "no control", "ceiling (VAE)"]
    if "canny" in arguments.which:
        rows = measure("playroom-canny", "playroom:test", "canny-scenes", arguments, backbone)
        stickers = f"stickers:{arguments.stickers}" if arguments.stickers else "stickers"
        rows += measure("playroom-canny", stickers, "canny-stickers", arguments, backbone)
        command = f"python -m benchmarks.control canny {settings}"
        write_result("canny", [*columns, "of ceiling", "over another's"], rows, command, tail)
    if "depth" in arguments.which:
        rows = measure("playroom-depth", "playroom:test", "depth-scenes", arguments, backbone)
        note = (
            "RMSE of inverse depth in shares of the hint's range, lower is better, read by a linear probe of the "
            "frozen base; its own error on real pictures is the ceiling column. "
        )
        write_result("depth", columns, rows, f"python -m benchmarks.control depth {settings}", note + tail)


if __name__ == "__main__":
    main()
