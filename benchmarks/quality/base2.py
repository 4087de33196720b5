"""The base by itself, without control: what its pictures show of their captions, beside real ones.

    python -m benchmarks.quality.base2 --base FOLDER --stickers data/stickers

Captions, seeds and figures are fixed: the first scenes of the test split from number 20,000 on, and
compositions of stickers of held-out concepts. Picture i has seed i.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import PICTURES, RESULTS, sheet, write_result
from tools.reports import span
from zeroconv import playroom
from zeroconv.backbones import Backbone, load_backbone
from zeroconv.evaluation.counting import count_scenes
from zeroconv.evaluation.distribution import bootstrap, frechet_distance, kernel_distance
from zeroconv.evaluation.fidelity import through_vae
from zeroconv.evaluation.metrics import interval
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.evaluation.reader import read
from zeroconv.generation import generate

FIRST = 20_000  # of the test split: far from what other tables show
SHEET = (40, 24)  # scenes and stickers among the 64 of the sheet
FIGURES = {
    "named": "things of the named kind read back",
    "exact": "scenes exactly as captioned",
    "object": "things of the named colour",
    "floor": "floors of the named kind",
    "wall": "walls of the named colour",
    "sharpness": "gradient at outlines, of 255 a pixel",
}

Pictures = list[Image.Image]
Distance = Callable[[np.ndarray, np.ndarray], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="playroom", help="name or folder")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--scheduler", default="ddim_trailing")
    parser.add_argument("--stickers", default="", help="folder; else the embedded ones")
    parser.add_argument("--name", default="base2", help="of the result and the sheet")
    parser.add_argument("--sheets", type=Path, default=PICTURES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    backbone = load_backbone(arguments.base)
    specs, scenes, stickers, captions = test_set(arguments.stickers, arguments.count, backbone)

    def make(texts: Sequence[str]) -> Pictures:
        options = {"steps": arguments.steps, "cfg": arguments.cfg, "scheduler": arguments.scheduler}
        seeds = list(range(len(texts)))
        return generate(backbone, list(texts), seed=seeds, batch_size=16, **options)

    made = make([playroom.caption_of(spec) for spec in specs])
    drawn = make(captions)
    coded = through_vae(backbone, scenes)

    rows = figures(specs, made, coded, scenes)
    rows += distances("scenes", made, coded, scenes)
    rows += distances("stickers", drawn, through_vae(backbone, stickers), stickers)

    shown = made[: SHEET[0]] + drawn[: SHEET[1]]
    lines = [shown[i : i + 8] for i in range(0, len(shown), 8)]
    sheet(lines, arguments.sheets / f"{arguments.name}.jpg")

    note = (
        f"{arguments.count} captions of the test split each, without control, {arguments.steps} "
        f"steps of {arguments.scheduler}, cfg {arguments.cfg:g}. The reader tells kinds; a region "
        "counts from 40 pixels."
    )
    command = f"python -m benchmarks.quality.base2 --count {arguments.count}"
    columns = ["", "generated", "through the VAE", "real"]
    write_result(
        arguments.name, columns, rows, command, note, arguments.results / f"{arguments.name}.json"
    )


def test_set(
    stickers: str, count: int, backbone: Backbone
) -> tuple[list[playroom.SceneSpec], Pictures, Pictures, list[str]]:
    """Scenes and their pictures; sticker pictures and their captions."""
    size = backbone.default_size
    seeds = playroom.split_seeds("test", count, start=FIRST)
    specs = [playroom.sample_scene(seed) for seed in seeds]
    scenes = [Image.fromarray(playroom.render_image(seed, size)[0]) for seed in seeds]
    pairs = load_pairs(f"stickers:{stickers}" if stickers else "stickers", "canny", count, size)

    return specs, scenes, [pair.image for pair in pairs], [pair.caption for pair in pairs]


def figures(
    specs: Sequence[playroom.SceneSpec], made: Pictures, coded: Pictures, real: Pictures
) -> list[list[str]]:
    """One row a figure: made, through the VAE, real."""
    columns = [count_scenes(images, specs) for images in (made, coded, real)]

    return [[text, *(span(interval(c[name])) for c in columns)] for name, text in FIGURES.items()]


def distances(what: str, made: Pictures, coded: Pictures, real: Pictures) -> list[list[str]]:
    """KID × 1000 and FID of the reader's features."""
    known = read(real).features
    rows = []

    for name, distance, scale in (("KID × 1000", _kid, 1000), ("FID", frechet_distance, 1)):
        cells = []
        for images in (made, coded):
            interval_of = bootstrap(distance, read(images).features, known)
            cells.append(span({key: scale * value for key, value in interval_of.items()}, 2))
        rows.append([f"{name}, {what}", *cells, "–"])

    return rows


def _kid(a: np.ndarray, b: np.ndarray) -> float:
    return kernel_distance(a, b)


if __name__ == "__main__":
    main()
