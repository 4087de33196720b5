"""The tutorial's circles on playroom-flow: a control of a transformer, by parts.

python -m benchmarks.quality.fill50k_flow [--base playroom-flow] [--data data] [--out
runs/fill50k-flow] [--variants ours,script] [--set training.steps=100]

Draws the circles, trains recipes/fill50k-flow.yaml, and measures 200 circles that were never
trained on, as `benchmarks.quality.fill50k` does. Beside it stands the same recipe with the defaults
of diffusers' train_controlnet_flux.py, and with one of these defaults at a time. All variants see
the same pictures in the same order. Every run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import PICTURES, sheet, write_result
from benchmarks.quality.fill50k import HELD_OUT, SIZE, TRAINED, figures, measure, through_vae
from tools.reports import ROOT, read_json
from zeroconv.backbones import load_backbone
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.playroom.fill50k import Circle, build_fill50k, draw_circle, sample_circle

# the defaults of the script's arguments; it copies 4 double and 4 single blocks, or all there are
PARTS: dict[str, tuple[str, ...]] = {
    "no empty prompts": ("training.prompt_dropping=0",),
    "timesteps logit-normal": ("training.timesteps=logit_normal",),
    "4 + 4 blocks": ("control.blocks=3", "control.single_blocks=4"),
    "AdamW at 5e-6": (
        "training.optimizer=adamw",
        "training.learning_rate=5e-6",
        "training.schedule=constant",
        "training.warmup=0",
    ),
    "no average": ("training.ema_decay=0",),
}
VARIANTS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "script": tuple(setting for part in PARTS.values() for setting in part),
    **PARTS,
}


def train(name: str, arguments: argparse.Namespace) -> Path:
    """Train a variant, or finish it; its folder."""
    out = arguments.out / name.replace(" ", "-")
    given = [f"out={out}", f"base={arguments.base}", f"data.train={arguments.circles}"]
    changes = [*given, *VARIANTS[name], *arguments.set]
    recipe = str(ROOT / "recipes" / "fill50k-flow.yaml")
    command = [sys.executable, "-m", "zeroconv.cli", "train", recipe]
    words = [word for change in changes for word in ("--set", change)]
    subprocess.run([*command, *words], check=True)
    return out


def pictures_of(
    base: Any, out: Path | None, circles: Sequence[Circle], steps: int
) -> list[Image.Image]:
    """Of the circles' prompts and outlines, by a run's control; without one by the base alone."""
    controls = []
    if out is not None:
        control = ControlNet.load(out / "control", backbone=base)
        hints = [Image.fromarray(draw_circle(circle, SIZE)[1]) for circle in circles]
        controls = [Control(control, hints)]
    return generate(
        base,
        [circle.prompt for circle in circles],
        controls=controls,
        steps=steps,
        seed=list(range(len(circles))),
        height=SIZE,
        width=SIZE,
        batch_size=16,
    )


def column(made: Sequence[Image.Image], circles: Sequence[Circle], out: Path | None) -> list[str]:
    """What is shown of one variant."""
    seen = figures(measure(made, circles))
    cells = [f"{value:.{1 if name.startswith('median') else 3}f}" for name, value in seen.items()]
    if out is None:
        return [*cells, "–", "–", "–"]
    summary = read_json(out / "summary.json")
    gain = (summary["validation"] or {}).get("gain")
    followed = (summary["converged"] or {}).get("step")
    more = ["–" if gain is None else f"{gain:+.4f}", "never" if followed is None else str(followed)]
    return [*cells, *more, f"{summary['minutes']:.0f}"]


def main() -> None:
    arguments = parse()
    arguments.circles = arguments.data / f"fill50k-{SIZE}"
    build_fill50k(arguments.circles, arguments.pictures, SIZE)
    runs = {name: train(name, arguments) for name in arguments.variants}
    circles = [sample_circle(HELD_OUT + i) for i in range(arguments.count)]
    base = load_backbone(arguments.base)
    made = {name: pictures_of(base, out, circles, arguments.steps) for name, out in runs.items()}
    first = next(iter(runs))
    drawn = [draw_circle(circle, SIZE)[0] for circle in circles]
    columns = {name: column(made[name], circles, out) for name, out in runs.items()}
    others = [*circles[1:], circles[0]]
    columns[f"{first}, another's prompt and place"] = column(made[first], others, None)
    alone = pictures_of(base, None, circles, arguments.steps)
    columns["base without control"] = column(alone, circles, None)
    columns["ceiling (VAE)"] = column(through_vae(base, drawn), circles, None)
    names = [*figures(measure(made[first], circles))]
    names += ["hint gain at the end", "hints followed since step", "minutes of training"]
    rows = [[name, *cells] for name, cells in zip(names, np.array([*columns.values()]).T.tolist(),
                                                  strict=True)]  # fmt: skip
    steps = read_json(runs[first] / "summary.json")["steps"]
    note = (
        f"{steps} steps each, the same {arguments.pictures:,} circles in the same order; "
        f"{arguments.count} held-out circles at {SIZE} px, {arguments.steps} steps of euler. "
        "`script`: the defaults of diffusers' train_controlnet_flux.py, all of them; then one of "
        "them at a time. Batch and steps are the recipe's."
    )
    if arguments.set or arguments.count != 200:
        print(*(" | ".join(row) for row in [["", *columns], *rows]), note, sep="\n")
        return
    write_result(
        "fill50k_flow", ["", *columns], rows, "python -m benchmarks.quality.fill50k_flow", note
    )
    shown = range(min(10, len(circles)))
    hints = [Image.fromarray(draw_circle(circle, SIZE)[1]) for circle in circles[:10]]
    sheet(
        [[pictures[i] for i in shown] for pictures in (hints, *made.values())],
        PICTURES / "fill50k-flow.jpg",
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="playroom-flow")
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fill50k-flow")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--pictures", type=int, default=TRAINED)
    parser.add_argument("--count", type=int, default=200, help="held-out circles")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--set", action="append", default=[], help="changes of the recipe, for a shorter try"
    )
    arguments = parser.parse_args()
    arguments.variants = arguments.variants.split(",")
    if unknown := [name for name in arguments.variants if name not in VARIANTS]:
        parser.error(f"there is no variant {unknown[0]!r}; choose of {', '.join(VARIANTS)}")
    return arguments


if __name__ == "__main__":
    main()
