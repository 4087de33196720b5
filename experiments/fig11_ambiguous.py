"""Figure 11: a scribble that may be several things. What is it taken for without a prompt, and does
a prompt settle it?

Silhouettes between the world's kinds, drawn as scribbles on a floor before a wall: no edges inside
that would tell. The playroom reader says what was made of them. `python -m
experiments.fig11_ambiguous [--count 48]`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy import ndarray
from PIL import Image

from experiments.common import Claim, maker_of, options, signed, span, write_result
from experiments.memory import Maker
from experiments.sheets import draw_sheet
from zeroconv.conditions import annotate
from zeroconv.control import ControlNet
from zeroconv.evaluation import reader
from zeroconv.evaluation.metrics import interval
from zeroconv.generation import Control
from zeroconv.playroom import CLASSES, KINDS

SEEDS = 4  # pictures of each hint
NOTHING = "nothing"
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")

# corners (N, 2) in a box of height 1 that stands on y = 0, y upwards
Outline = Callable[[], ndarray]


def _superellipse(power: float, width: float) -> ndarray:
    angle = np.linspace(0, 2 * np.pi, 121)[:-1]
    c, s = np.cos(angle), np.sin(angle)
    x, y = np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack([width * x / 2, (y + 1) / 2], axis=1)


def _frustum(bottom: float, top: float) -> ndarray:
    return np.array([(-bottom / 2, 0), (bottom / 2, 0), (top / 2, 1), (-top / 2, 1)])


def _dome(width: float) -> ndarray:
    angle = np.linspace(0, np.pi, 61)
    arch = np.stack([width / 2 * np.cos(angle), 0.5 + 0.5 * np.sin(angle)], axis=1)
    return np.concatenate([arch, [(-width / 2, 0), (width / 2, 0)]])


SHAPES: dict[str, Outline] = {
    "circle": lambda: _superellipse(2, 1.0),
    "rounded square": lambda: _superellipse(4, 1.0),
    "square": lambda: _frustum(1.0, 1.0),
    "upright rectangle": lambda: _frustum(0.6, 0.6),
    "trapezium": lambda: _frustum(0.8, 0.4),
    "triangle": lambda: _frustum(0.85, 0.0),
    "upright ellipse": lambda: _superellipse(2, 0.5),
    "dome": lambda: _dome(0.75),
}
PLAIN = {"circle": "ball", "triangle": "cone"}  # the silhouette of one kind and of no other
FITS = {  # the two kinds of the world whose silhouettes come nearest to an ambiguous shape
    "rounded square": ("cube", "ball"),
    "square": ("cube", "cylinder"),
    "upright rectangle": ("cylinder", "person"),
    "trapezium": ("cone", "cylinder"),
    "upright ellipse": ("cylinder", "person"),
    "dome": ("ball", "cylinder"),
}


def draw_hint(shape: str, seed: int, size: int = 128) -> tuple[Image.Image, ndarray]:
    """A scribble of a shape somewhere on the floor, and the pixels (size, size) bool inside it."""
    rng, fine = np.random.default_rng([seed, 11]), 4 * size
    height, foot, horizon = (
        rng.uniform(0.32, 0.42),
        rng.uniform(0.66, 0.74),
        rng.uniform(0.46, 0.54),
    )
    corners = SHAPES[shape]() * height
    corners = np.stack([rng.uniform(0.35, 0.65) + corners[:, 0], foot - corners[:, 1]], axis=1)
    mask = cv2.fillPoly(
        np.zeros((fine, fine), np.uint8), [np.round(corners * fine).astype(np.int32)], 255
    )
    ground = np.where(np.arange(fine)[:, None] < horizon * fine, 200, 130)
    grey = np.where(mask > 0, 40, np.broadcast_to(ground, mask.shape)).astype(np.uint8)
    picture = Image.fromarray(cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)).convert(
        "RGB"
    )
    return annotate("scribble", picture), cv2.resize(
        mask, (size, size), interpolation=cv2.INTER_AREA
    ) > 127


def prompt_of(kind: str, seed: int) -> str:
    """A caption of the world that names one thing; the same colours and rooms whatever the kind."""
    rng = np.random.default_rng([seed, 12])
    colour, floor = rng.choice(COLOURS), rng.choice(["wooden", "stone", "sandy", "tiled"])
    wall = rng.choice(["grey", "beige", "pale blue", "green"])
    thing = (
        f"a large person in {colour} standing" if kind == "person" else f"a large {colour} {kind}"
    )
    return f"{thing} on a {floor} floor in front of a {wall} wall"


def answers(images: list[Image.Image], masks: list[ndarray]) -> list[str]:
    """What the reader sees in most of a shape's pixels; wall and floor are nothing."""
    names = []
    for classes, mask in zip(reader.read(images).segmentation, masks, strict=True):
        name = CLASSES[int(np.bincount(classes[mask], minlength=len(CLASSES)).argmax())]
        names.append(name if name in KINDS else NOTHING)
    return names


def measure(shape: str, count: int, make: Maker, net: ControlNet) -> tuple[dict[str, Any], tuple]:
    """Answers to a shape without a prompt, with each kind named, and without control; a row of the
    contact sheet.
    """
    numbers = [i // SEEDS for i in range(count)]
    hints, masks = zip(
        *(draw_hint(shape, i, make.backbone.default_size) for i in numbers), strict=True
    )
    control, few = [Control(net, list(hints))], max(SEEDS, count // 2)
    half = [Control(net, list(hints[:few]))]
    made = {"": make([""] * count, control)}
    for kind in KINDS:
        made[kind] = make([prompt_of(kind, i) for i in numbers[:few]], half)
    read = {name: answers(images, list(masks[: len(images)])) for name, images in made.items()}
    read["without control"] = answers(make([""] * count), list(masks))
    at = list(SHAPES).index(shape) * SEEDS % few  # another place for each row of the sheet
    row = [hints[at], *made[""][at : at + SEEDS], *(made[kind][at] for kind in KINDS)]
    labels = ["", *read[""][at : at + SEEDS], *(read[kind][at] for kind in KINDS)]
    return read, (row, labels)


def by_hint(values: Sequence[float]) -> list[float]:
    """Means of the `SEEDS` pictures of each hint: these are what is independent of one another."""
    return [float(np.mean(values[i : i + SEEDS])) for i in range(0, len(values), SEEDS)]


def share(read: list[str], name: str) -> dict[str, float]:
    return interval(by_hint([float(answer == name) for answer in read]))


def spread_apart(results: dict[str, dict[str, list[str]]], draws: int = 1000) -> dict[str, float]:
    """By how many bits answers to the ambiguous shapes spread more than those to the plain ones,
    hints resampled.
    """
    rng = np.random.default_rng(0)
    groups = {
        s: [it[""][i : i + SEEDS] for i in range(0, len(it[""]), SEEDS)]
        for s, it in results.items()
    }

    def apart(chosen: dict[str, list[str]]) -> float:
        clear, vague = (
            [entropy(r) for s, r in chosen.items() if (s in PLAIN) == w] for w in (True, False)
        )
        return float(np.mean(vague) - np.mean(clear))

    drawn = []
    for _ in range(draws):
        chosen = {
            s: [a for k in rng.integers(len(g), size=len(g)) for a in g[k]]
            for s, g in groups.items()
        }
        drawn.append(apart(chosen))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "mean": apart({s: it[""] for s, it in results.items()}),
        "low": float(low),
        "high": float(high),
    }


def entropy(read: list[str]) -> float:
    """Bits of the answers' spread; 0 where all are the same."""
    shares = np.unique(read, return_counts=True)[1] / len(read)
    return abs(float((shares * np.log2(shares)).sum()))


def undecided(read: list[str]) -> float:
    """Share of hints that different seeds take for different things."""
    groups = [read[i : i + SEEDS] for i in range(0, len(read), SEEDS)]
    return float(np.mean([len(set(group)) > 1 for group in groups]))


def main() -> None:
    arguments = options(__doc__, 48)
    count = max(SEEDS, arguments.count // SEEDS * SEEDS)
    make = maker_of(arguments)
    net = ControlNet.load("playroom-scribble", backbone=make.backbone)
    rows, sheet, labels, results = [], [], [], {}
    for shape in SHAPES:
        results[shape], (pictures, words) = measure(shape, count, make, net)
        it = results[shape]
        cells = [span(share(it[""], name), 2) for name in (*KINDS, NOTHING)]
        rows.append(
            [f"{shape}, no prompt", *cells, f"{entropy(it['']):.2f}", f"{undecided(it['']):.0%}"]
        )
        named = [span(share(it[kind], kind), 2) for kind in KINDS]
        rows.append([f"{shape}, this kind named", *named, "–", "–", "–"])
        sheet.append((shape, pictures))
        labels.append(words)
        print(shape, rows[-2][1:], flush=True)
    heads = [
        "hint",
        *(f"no prompt, seed {k + 1}" for k in range(SEEDS)),
        *(f'"{kind}"' for kind in KINDS),
    ]
    draw_sheet(sheet, arguments.pictures / "fig11.jpg", heads, labels)
    columns = ["", *KINDS, NOTHING, "spread, bits", "hints whose seeds differ"]
    note = (
        f"Control `playroom-scribble`, n = {count} a shape without a prompt ({count // SEEDS} "
        f"places, {SEEDS} seeds each), {max(SEEDS, count // 2)} for each kind named in a caption; "
        "12 UniPC steps, guidance `cond`, cfg 4. Shares of pictures that the reader takes for a "
        "kind, 95% intervals; nothing: wall or floor."
    )
    caption = (
        "fig11.jpg: a hint of each shape, four answers without a prompt, and one for each kind "
        "named"
    )
    write_result(
        "fig11",
        columns,
        rows,
        claims(results),
        note=note,
        pictures=[caption],
        details=results,
        maker=make,
        folder=arguments.out,
    )


def claims(results: dict[str, dict[str, list[str]]]) -> list[Claim]:
    something = {
        shape: share(["x" if a != NOTHING else a for a in it[""]], "x")
        for shape, it in results.items()
    }
    blind = share(
        ["x" if a != NOTHING else a for it in results.values() for a in it["without control"]], "x"
    )
    least = min(something, key=lambda shape: something[shape]["mean"])
    plain = {shape: share(results[shape][""], kind) for shape, kind in PLAIN.items()}
    spread = {shape: entropy(it[""]) for shape, it in results.items()}
    apart, gains, named, rarest = spread_apart(results), [], [], []
    for shape, kinds in FITS.items():
        # the other one comes without being asked for
        rarer = min(kinds, key=results[shape][""].count)
        asked = [float(answer == rarer) for answer in results[shape][rarer]]
        unasked = [float(answer == rarer) for answer in results[shape][""][: len(asked)]]
        named += by_hint(asked)
        gains += by_hint([a - b for a, b in zip(asked, unasked, strict=True)])
        rarest.append(f"{shape}, {rarer} {np.mean(asked):.2f}")
    gain, settled = interval(gains), interval(named)
    return [
        Claim(
            "without a prompt the model tries to interpret an ambiguous shape",
            f"a thing stands where the shape was drawn in {span(something[least], 2)} of the "
            f"pictures at the least ({least}); without control in {span(blind, 2)}",
            something[least]["low"] > blind["high"],
        ),
        Claim(
            "plain shapes are taken for what they outline",
            ", ".join(
                f"{shape} for a {PLAIN[shape]}: {span(value, 2)}" for shape, value in plain.items()
            ),
            all(value["low"] > 0.5 for value in plain.values()),
        ),
        Claim(
            "ambiguous ones for several things",
            f"answers spread over {signed(apart, 2)} bits more than those to the two plain shapes; "
            + ", ".join(f"{shape} {spread[shape]:.2f}" for shape in FITS),
            apart["low"] > 0,
        ),
        Claim(
            "a prompt settles it (implied by the paper's other figures)",
            "of the two kinds nearest to an ambiguous shape, the one that comes less without a "
            f"prompt comes in {span(settled, 2)} of the pictures where it is named, "
            f"{signed(gain, 2)} more: {', '.join(rarest)}",
            settled["low"] > 0.5,
        ),
    ]


if __name__ == "__main__":
    main()
