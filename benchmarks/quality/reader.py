"""The playroom reader: train it, and measure its own error on real test scenes.

python -m benchmarks.quality.reader [--train FOLDER] [--count 500]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import PICTURES, sheet, write_result
from tools.reports import span
from zeroconv import playroom
from zeroconv.backbones import load_backbone
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.scores import METRICS
from zeroconv.data.sources.generated import open_scenes
from zeroconv.evaluation.fidelity import through_vae
from zeroconv.evaluation.metrics import summarise
from zeroconv.evaluation.reader import read, save_reader
from zeroconv.evaluation.reading import as_picture

READ = ("depth", "normal", "segmentation", "pose")


def truth_of(scene: playroom.Scene, condition: str) -> Any:
    return scene.keypoints if condition == "pose" else getattr(scene, condition)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--train", type=Path, help="folder of the training run; about half an hour on one core"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--count", type=int, default=500)
    arguments = parser.parse_args()
    backbone = load_backbone("playroom")
    if arguments.train:
        from zeroconv.scratch.reader import ReaderConfig, train_reader

        save_reader(train_reader(arguments.train, ReaderConfig(steps=arguments.steps), backbone))
    rows = []
    for condition in READ:
        only = "person" if condition == "pose" else None
        scenes = [
            playroom.render(seed)
            for seed in open_scenes("test", arguments.count, 50_000, only).seeds
        ]
        images = [scene.image for scene in scenes]
        for where, shown in (("real", images), ("through the VAE", through_vae(backbone, images))):
            readings = getattr(read(shown), condition)
            scores = [
                CONDITIONS[condition].score(truth_of(s, condition), r)
                for s, r in zip(scenes, readings, strict=True)
            ]
            for metric in scores[0]:
                value = summarise([s[metric] for s in scores], METRICS[metric].kind)
                rows.append([f"{condition}, {where}", METRICS[metric].meaning, span(value)])
    draw(backbone)
    write_result(
        "reader", ["", "", "value"], rows, "python -m benchmarks.quality.reader",
        f"n = {arguments.count} test scenes (poses: with a person in them); 95% bootstrap "
        "intervals.",
    )  # fmt: skip


def draw(backbone: Any) -> None:
    """Eight scenes through the VAE: picture, then truth above reading for each map."""
    scenes = [playroom.render(seed) for seed in open_scenes("test", 8, 60_000, "person").seeds]
    images = through_vae(backbone, [scene.image for scene in scenes])
    readings = read(images)
    lines: list[list[Image.Image]] = [images]
    for condition in READ:
        lines.append(
            [
                as_picture(condition, truth_of(scene, condition), scene.image.size)
                for scene in scenes
            ]
        )
        lines.append(
            [as_picture(condition, r, scenes[0].image.size) for r in getattr(readings, condition)]
        )
    sheet(lines, PICTURES / "reader.png")
    assert np.isfinite(readings.depth).all()


if __name__ == "__main__":
    main()
