"""Upscaling by tiles: seams, colours, edges and memory, on pictures of the playroom.

python -m benchmarks.quality.upscale [--count 4] [--factor 4] [--steps 20]
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import PICTURES, sheet, write_result
from zeroconv.backbones import load_backbone
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.generation.tiles import starts
from zeroconv.generation.upscaling import OVERLAP, upscale

PROMPTS = (
    "a large red ball and a small blue cube on a green carpet",
    "a small person in yellow standing on a grey floor",
    "a large green tree beside a purple cube",
    "a cat on a blue carpet",
)


def seam_ratio(made: Image.Image, enlarged: Image.Image, side: int, unit: int = 8) -> float:
    """Of what tiles add to the enlarged picture, the mean step between neighbouring pixels at the
    edges of tiles over that of all others; 1 where edges do not show.
    """
    pixels = np.asarray(made, np.float32) - np.asarray(enlarged, np.float32)
    ratios = []
    for array in (pixels, pixels.transpose(1, 0, 2)):
        steps = np.abs(np.diff(array, axis=1)).mean((0, 2))
        begins = starts(array.shape[1], side, round(side * OVERLAP), unit)[1:]
        ends = [begin + side for begin in starts(array.shape[1], side, round(side * OVERLAP), unit)]
        edges = [e - 1 for e in [*begins, *ends] if 0 < e < array.shape[1]]
        inside = np.delete(steps, edges)
        ratios.append(float(steps[edges].mean() / inside.mean()))
    return float(np.mean(ratios))


def colour_error(picture: Image.Image, source: Image.Image) -> float:
    """Mean difference in levels of 255 between the source and the result brought to its size."""
    small = picture.resize(source.size, Image.Resampling.BOX)
    return float(np.abs(np.asarray(small, np.float32) - np.asarray(source, np.float32)).mean())


def sharpness(picture: Image.Image) -> float:
    """Mean step between neighbouring pixels, levels of 255."""
    pixels = np.asarray(picture, np.float32)
    return float(np.abs(np.diff(pixels, axis=1)).mean())


def main() -> None:
    arguments = parse()
    backbone = load_backbone("playroom")
    canny = ControlNet.load("playroom-canny")
    ways: dict[str, dict[str, Any]] = {
        "Lanczos alone": {},
        "no control": {"controls": []},
        "no control, colours free": {"controls": [], "keep_colours": False},
        "canny": {"controls": [Control(canny, None)]},
        "canny, cfg 4": {"controls": [Control(canny, None)], "cfg": 4.0},
    }
    rows, pictures = [], []
    for name, options in ways.items():
        values, shown, began = [], [], time.perf_counter()
        tracemalloc.start()
        for i, prompt in enumerate(PROMPTS[: arguments.count]):
            (source,) = generate(backbone, prompt, seed=i)
            size = tuple(round(arguments.factor * length) for length in source.size)
            made = enlarged = source.resize(size, Image.Resampling.LANCZOS)
            if options:
                made = upscale(
                    backbone,
                    source,
                    arguments.factor,
                    prompt=prompt,
                    seed=i,
                    steps=arguments.steps,
                    **options,
                )
            side = backbone.default_size
            seams = seam_ratio(made, enlarged, side) if options else 1.0
            values.append([seams, colour_error(made, source), sharpness(made)])
            shown.append(made)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        seconds = (time.perf_counter() - began) / len(values)
        means = np.mean(values, 0)
        rows.append([name, *(f"{v:.2f}" for v in means), f"{seconds:.0f}", f"{peak:.0f}"])
        pictures.append(shown)
        print(rows[-1], flush=True)
    first = [[row[i] for row in pictures] for i in range(min(2, arguments.count))]
    sheet(first, PICTURES / "upscale.jpg")
    columns = ["", "seams", "colours", "sharpness", "seconds", "MB of arrays"]
    note = (
        f"{arguments.count} pictures of 128 px at {arguments.factor:g}×, "
        f"{arguments.steps} UniPC steps, strength "
        "0.35. Seams: steps between pixels at edges of tiles over those elsewhere. Colours: mean "
        "difference to the source at its size, of 255. Sharpness: mean step, of 255. Seconds a "
        "picture by the clock, beside other work on the machine."
    )
    command = (
        f"python -m benchmarks.quality.upscale --count {arguments.count} "
        f"--factor {arguments.factor:g} --steps {arguments.steps}"
    )
    write_result("upscale", columns, rows, command, note)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4, help="pictures, at most 4")
    parser.add_argument("--factor", type=float, default=4)
    parser.add_argument("--steps", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
