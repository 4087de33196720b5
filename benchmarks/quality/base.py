"""The base model by itself: reconstruction, and whether named colours come out.

python -m benchmarks.quality.base [--count 200] [--stickers FOLDER]
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.common import PICTURES, sheet, write_result
from tools.reports import span
from zeroconv.backbones import load_backbone
from zeroconv.control import ControlNet
from zeroconv.evaluation.adherence import REGIONS, adherence
from zeroconv.evaluation.fidelity import through_vae
from zeroconv.evaluation.metrics import interval, psnr
from zeroconv.evaluation.pairs import load_pairs


def main() -> None:
    arguments = parse()
    backbone = load_backbone("playroom")
    rows = []
    for data in (
        "playroom:test",
        f"stickers:{arguments.stickers}" if arguments.stickers else "stickers",
    ):
        images = [
            pair.image for pair in load_pairs(data, "canny", arguments.count, backbone.default_size)
        ]
        decoded = through_vae(backbone, images)
        values = [psnr(np.asarray(a), np.asarray(b)) for a, b in zip(images, decoded, strict=True)]
        where = "test scenes" if data.startswith("playroom") else "stickers of held-out concepts"
        text = f"VAE reconstruction, {where}, PSNR in dB"
        rows.append([text, span(interval(values), 2), "–", "≥ 30 (scenes)"])
    control = ControlNet.load("playroom-canny", backbone=backbone)
    report, images, scenes = adherence(
        backbone, control, arguments.count, arguments.steps, guidance=arguments.guidance
    )
    for region, target in zip(REGIONS, ("≥ 0.85", "≥ 0.90", "≥ 0.90"), strict=True):
        value = report[region]
        rows.append(
            [
                f"{region} has the colour of its name",
                span(value["generated"]),
                span(value["real"]),
                target,
            ]
        )
    sheet(
        [images[i : i + 8] for i in (0, 8)]
        + [[s.image for s in scenes[i : i + 8]] for i in (0, 8)],
        PICTURES / "adherence.png",
    )
    note = (
        f"{arguments.count} test pictures each; colours read from {arguments.count} one-object "
        f"scenes generated with their own edges and caption, {arguments.steps} steps, guidance "
        f"`{arguments.guidance}`, cfg 4; the real column reads real pictures likewise."
    )
    command = (
        f"python -m benchmarks.quality.base --count {arguments.count} --steps {arguments.steps}"
    )
    command += " --stickers data/stickers" if arguments.stickers else ""
    write_result("base", ["", "measured", "real pictures", "target"], rows, command, note)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--stickers", default="")
    parser.add_argument(
        "--guidance",
        default="cond",
        help="resolution follows edges as well, but loses object colours",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
