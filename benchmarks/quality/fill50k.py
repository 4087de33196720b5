"""The tutorial's circles on the playroom's base: their places and their colours.

python -m benchmarks.quality.fill50k [--data data] [--out runs/fill50k-playroom]

Draws the circles, trains by recipes/fill50k-playroom-64.yaml and from there by
recipes/fill50k-playroom.yaml (all go on where they stopped), and measures 200 circles that were
never trained on, with the base whose decoder was trained too. A colour is right if it is within 20
in CIE Lab (ΔE 1976) of the named one: the least distance that the two colours of a picture have.
Read are the median inside the outline, and the median well outside it. The circle that was painted
is parted from its ground by two clusters in Lab, without knowing where it should be.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from benchmarks.common import PICTURES, sheet, write_result
from tools.reports import ROOT, read_json
from zeroconv.backbones import Backbone, load_backbone
from zeroconv.control import ControlNet
from zeroconv.data.cache.moments import to_images
from zeroconv.generation import Control, generate
from zeroconv.playroom.fill50k import (
    CONTRAST,
    Circle,
    build_fill50k,
    disc,
    draw_circle,
    lab,
    rgb,
    sample_circle,
)
from zeroconv.training.reporting.samples import to_picture

SIZE = 128
TRAINED = 8192
HELD_OUT = 1_000_000  # number of the first circle that is measured
# Berlin and Kay's eleven basic colours, by their CSS values: what a person would call a colour
# without a chart
BASIC = (
    "black",
    "white",
    "red",
    "green",
    "yellow",
    "blue",
    "brown",
    "orange",
    "pink",
    "purple",
    "gray",
)


def read_colours(pixels: ndarray, circle: Circle) -> tuple[ndarray, ndarray]:
    """CIE Lab (3,) inside the circle that was asked for, and of its ground; pixels (S, S, 3)
    uint8.
    """
    centres = (np.arange(len(pixels)) + 0.5) / len(pixels)
    away = np.hypot(centres[None] - circle.x, centres[:, None] - circle.y) / circle.radius
    shown = lab(pixels)
    return np.median(shown[away < 0.8], axis=0), np.median(shown[away > 1.2], axis=0)


def painted(pixels: ndarray) -> ndarray:
    """Which pixels (S, S) bool are not ground: of two clusters of colours, the one that touches the
    border less.
    """
    shown = lab(pixels).reshape(-1, 3)
    cv2.setRNGSeed(0)
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 0.1)
    _, labels, _ = cv2.kmeans(shown, 2, np.empty(0), until, 3, cv2.KMEANS_PP_CENTERS)
    mask = labels.reshape(pixels.shape[:2]).astype(bool)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return mask if border.mean() < 0.5 else ~mask


def measure(pictures: Sequence[Image.Image], circles: Sequence[Circle]) -> dict[str, ndarray]:
    """A number a picture: distances of both colours from the named ones, whether their basic
    colours agree, and the intersection over union of the painted circle with the one asked for.
    """
    basic = lab(np.array([rgb(name) for name in BASIC]))
    figures_of: dict[str, list[float]] = {
        "circle": [],
        "ground": [],
        "circle group": [],
        "ground group": [],
        "iou": [],
    }
    for picture, circle in zip(pictures, circles, strict=True):
        pixels, truth = np.asarray(picture.convert("RGB")), disc(circle, picture.width)
        seen = dict(zip(("circle", "ground"), read_colours(pixels, circle), strict=True))
        for name, wanted in (("circle", circle.colour), ("ground", circle.ground)):
            named = lab(np.array([rgb(wanted)]))[0]
            figures_of[name].append(float(np.linalg.norm(seen[name] - named)))
            groups = [
                int(np.linalg.norm(basic - colour, axis=1).argmin())
                for colour in (seen[name], named)
            ]
            figures_of[f"{name} group"].append(float(groups[0] == groups[1]))
        mask = painted(pixels)
        figures_of["iou"].append(float((mask & truth).sum() / (mask | truth).sum()))
    return {name: np.array(values) for name, values in figures_of.items()}


def figures(measured: dict[str, ndarray]) -> dict[str, float]:
    circle, ground = (measured[name] < CONTRAST for name in ("circle", "ground"))
    return {
        "circle has the colour of its name": circle.mean(),
        "ground has the colour of its name": ground.mean(),
        "both": (circle & ground).mean(),
        "circle of the right basic colour (11)": measured["circle group"].mean(),
        "ground of the right basic colour (11)": measured["ground group"].mean(),
        "median distance of circle, CIE Lab": float(np.median(measured["circle"])),
        "median distance of ground, CIE Lab": float(np.median(measured["ground"])),
        "circle where its outline is, IoU": measured["iou"].mean(),
    }


def through_vae(backbone: Backbone, pictures: Sequence[ndarray]) -> list[Image.Image]:
    """What the autoencoder leaves of pictures: no control can do better."""
    moments = torch.cat([backbone.encode_image(to_images(part[None])) for part in pictures])
    decoded = backbone.decode_latents(backbone.latents_from_moments(moments, sample=False))
    return [to_picture(image) for image in decoded]


def train(name: str, data: Path, size: int, out: Path, settings: Sequence[str]) -> dict:
    """Draw what is missing, train what is missing; the run's summary."""
    folder = data / f"fill50k-{size}"
    build_fill50k(folder, TRAINED, size)
    changes = [f"out={out}", f"data.train={folder}", *settings]
    command = [
        sys.executable,
        "-m",
        "zeroconv.cli",
        "train",
        str(ROOT / "recipes" / f"{name}.yaml"),
    ]
    subprocess.run(
        [*command, *(word for change in changes for word in ("--set", change))], check=True
    )
    return read_json(out / "summary.json")


def main() -> None:
    arguments = parse()
    small = arguments.out.with_name(f"{arguments.out.name}-64")
    runs = [train("fill50k-playroom-64", arguments.data, 64, small, arguments.set)]
    goes_on = [f"base={small / 'base'}", f"control.init={small / 'control'}", *arguments.set]
    runs.append(train("fill50k-playroom", arguments.data, SIZE, arguments.out, goes_on))

    circles = [sample_circle(arguments.first + i) for i in range(arguments.count)]
    drawn = [draw_circle(circle, SIZE) for circle in circles]
    hints = [Image.fromarray(hint) for _, hint in drawn]
    backbone, trained = load_backbone("playroom"), load_backbone(arguments.out / "base")
    control = ControlNet.load(arguments.out / "control", backbone=trained)
    options = {
        "steps": arguments.steps,
        "scheduler": arguments.scheduler,
        "seed": list(range(len(circles))),
        "batch_size": 16,
    }
    prompts = [circle.prompt for circle in circles]
    guided = {**options, "guidance": arguments.guidance, "cfg": arguments.cfg}
    made = generate(trained, prompts, controls=[Control(control, hints)], **guided)
    alone = generate(backbone, prompts, guidance="cond", cfg=4.0, **options)
    others = [*circles[1:], circles[0]]
    columns = {
        "measured": figures(measure(made, circles)),
        "by chance (another's prompt and place)": figures(measure(made, others)),
        "base without control": figures(measure(alone, circles)),
        "ceiling (VAE)": figures(
            measure(through_vae(backbone, [picture for picture, _ in drawn]), circles)
        ),
    }
    digits = {name: 1 if name.startswith("median") else 3 for name in columns["measured"]}
    rows: list[list] = [
        [name, *(f"{c[name]:.{d}f}" for c in columns.values())] for name, d in digits.items()
    ]
    rows.append(
        ["minutes of training", f"{sum(run['minutes'] for run in runs):.0f}", "–", "–", "–"]
    )
    note = note_of(arguments, runs)
    if arguments.first != HELD_OUT:
        for row in rows:
            print(" | ".join(row))
        print(note)
        return
    write_result("fill50k", ["", *columns], rows, "python -m benchmarks.quality.fill50k", note)
    shown = range(min(10, len(made)))
    pictures = [Image.fromarray(picture) for picture, _ in drawn]
    sheet(
        [[column[i] for i in shown] for column in (hints, made, pictures)], PICTURES / "fill50k.jpg"
    )


def note_of(arguments: argparse.Namespace, runs: list[dict]) -> str:
    spent = [
        f"{run['steps']} steps at {side} px" for run, side in zip(runs, (64, SIZE), strict=True)
    ]
    return (
        f"{' and '.join(spent)}, {sum(run['samples'] for run in runs):,} samples of "
        f"{runs[1]['examples']:,} circles, the decoder trained too (the tutorial's `sd_locked = "
        f"False`); {arguments.count} held-out circles at {SIZE} px, {arguments.steps} steps of "
        f"`{arguments.scheduler}`, guidance `{arguments.guidance}`, cfg {arguments.cfg:g}. A "
        f"colour is right within {CONTRAST:g} of the named one in CIE Lab (ΔE 1976); 140 CSS names."
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fill50k-playroom")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument(
        "--first", type=int, default=HELD_OUT, help="first circle; others are printed, not written"
    )
    parser.add_argument("--guidance", default="both")
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=20)
    # by the base's own spacing the first step, 941, would still show a tenth of the colours:
    # those of no picture
    parser.add_argument("--scheduler", default="unipc_trailing")
    parser.add_argument(
        "--set", action="append", default=[], help="changes of both recipes, for a shorter try"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
