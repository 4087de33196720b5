"""Edges on real art: the shipped canny control on stickers of concepts that no training saw.

python -m benchmarks.quality.control [--count 200] [--stickers FOLDER]
"""

from __future__ import annotations

import argparse

from benchmarks.common import PICTURES, write_result
from benchmarks.quality.family import draw
from tools.reports import span
from zeroconv.backbones import load_backbone
from zeroconv.evaluation.fidelity import COLUMNS, Shown, evaluate


def main() -> None:
    arguments = parse()
    backbone, rows = load_backbone("playroom"), []
    for prompts in ("own", "empty"):
        shown: list[Shown] = []
        report = evaluate(
            "playroom-canny",
            data=f"stickers:{arguments.stickers}" if arguments.stickers else "stickers",
            base=backbone,
            count=arguments.count,
            count_none=arguments.none,
            prompts=prompts,
            guidance=arguments.guidance,
            varied=0,
            pictures=shown,
        )
        for metric, values in report["metrics"].items():
            followed, ceiling, shuffled = (
                values[name]["mean"] for name in ("own", "ceiling", "shuffled")
            )
            name = f"{metric}, {'own caption' if prompts == 'own' else 'no prompt'}"
            rows.append(
                [
                    name,
                    *(span(values[c]) for c in COLUMNS[:4]),
                    f"{followed / ceiling:.0%}",
                    f"{followed / shuffled:.1f}×",
                ]
            )
            print(rows[-1], flush=True)
        draw(report, shown[0], PICTURES / f"canny-stickers-{prompts}.png")
    columns = [
        "",
        "own hint",
        "another's hint",
        "no control",
        "ceiling (VAE)",
        "of ceiling",
        "over another's",
    ]
    tail = " --stickers data/stickers" if arguments.stickers else ""
    command = (
        f"python -m benchmarks.quality.control --count {arguments.count} --none "
        f"{arguments.none}{tail}"
    )
    note = (
        f"Stickers of held-out concepts; n = {arguments.count} (no control: {arguments.none}), 12 "
        f"UniPC steps, guidance `{arguments.guidance}`, cfg 4; 95% bootstrap intervals."
    )
    write_result("canny", columns, rows, command, note)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--none", type=int, default=50, help="pictures made without control")
    parser.add_argument("--guidance", default="cond")
    parser.add_argument(
        "--stickers",
        default="",
        help="folder of `zeroconv playroom stickers`; the sample otherwise",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
