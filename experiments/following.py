"""How a training begins to follow the hint: hint gain, fidelity and training loss against the step.

Figure 4's experiments are made of it. Every run has a constant rate and pauses every few steps to
make test pictures.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments import measures
from experiments.common import MAIN, Claim, span
from experiments.memory import Maker
from experiments.sheets import draw_sheet
from experiments.training import gains, looks
from zeroconv.evaluation.pairs import Pair
from zeroconv.generation import Control
from zeroconv.training.measuring.convergence import Convergence, Measured, detect
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reporting.log import RunLog
from zeroconv.training.trainer import Trainer

CONDITION = "canny"
SHOWN = 2  # scenes of the contact sheet
COLUMNS = [
    "",
    "hint gain rises from step",
    "settled at step",
    "pictures seen when it rises",
    "fidelity goes from a fifth to four fifths of its rise in steps",
    f"{MAIN[CONDITION]} at step 0",
    "at the end",
]


@dataclass
class Followed:
    """What several trainings showed, by name."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # what `claims` reads
    rows: list[list[Any]] = field(default_factory=list)  # under `COLUMNS`
    details: dict[str, Any] = field(default_factory=dict)
    panels: list[tuple[str, dict[str, list[tuple[float, float]]]]] = field(
        default_factory=lambda: [("hint gain", {}), (MAIN[CONDITION], {}), ("training loss", {})]
    )
    pictures: int = 0
    cpu_seconds: float = 0.0  # of the pictures, whenever they were made

    def add(self, name: str, recipe: Recipe, steps: int, fidelity: dict[int, dict]) -> None:
        """Read what a finished training logged. fidelity: what `follow` gave."""
        folder, batch = Path(recipe.out), recipe.training.batch_size
        start, gain, loss = began(folder), gains(folder), losses(folder)
        followed = [(step, one["own"]["mean"]) for step, one in fidelity.items()]
        risen = rise(followed)

        self.pictures += sum(one["pictures"] for one in fidelity.values())
        self.cpu_seconds += sum(one["cpu_seconds"] for one in fidelity.values())
        curves: list[list[tuple[Any, float]]] = [
            [(step, value) for step, value, _ in gain],
            followed,
            loss,
        ]
        for (_, panel), curve in zip(self.panels, curves, strict=True):
            panel[name] = [(float(x), y) for x, y in curve]

        cells: list[Any] = ["not within the run", "–", "–"]
        if start is not None:
            cells = [start.step, start.seen, start.step * batch]
        first, last = fidelity[0]["own"], fidelity[max(fidelity)]["own"]
        self.rows.append([name, *cells, f"{risen[0]} to {risen[1]}", span(first), span(last)])
        self.results[name] = {
            "start": start,
            "rise": risen,
            "batch": batch,
            "loss": loss,
            "steps": steps,
        }
        self.details[name] = {
            "gain": gain,
            "fidelity": fidelity,
            "began": start and start.as_dict(),
            "loss": loss,
        }


def follow_all(
    recipes: dict[str, tuple[Recipe, int]],
    arguments: Any,
    make: Maker,
    pairs: list[Pair],
    ends: bool = False,
) -> Followed:
    """Train every recipe for its steps, a look every `arguments.every`. ends: see `follow`."""
    followed = Followed()
    if arguments.fresh:  # pictures are made as training goes on
        for recipe, _ in recipes.values():
            shutil.rmtree(recipe.out, ignore_errors=True)

    for name, (recipe, steps) in recipes.items():
        marks = list(range(0, steps + 1, arguments.every))
        followed.add(name, recipe, steps, follow(recipe, marks, pairs, make, ends))

    return followed


def follow(
    recipe: Recipe, marks: list[int], pairs: list[Pair], make: Maker, ends: bool = False
) -> dict[int, dict[str, Any]]:
    """Train, and measure at every mark: fidelity, what it is above another's hint's, and what its
    pictures cost. ends: a run ends half as many steps, and 200, after it began to follow.
    """
    metric = MAIN[CONDITION]

    def look(mark: int, trainer: Trainer) -> dict[str, Any]:
        before = sum(make.costs.values())
        made = make(
            [pair.caption for pair in pairs],
            [Control(trainer.control, [pair.hint for pair in pairs])],
        )
        followed = measures.fidelity(CONDITION, pairs, made, metric)
        other = measures.fidelity(CONDITION, measures.shuffled(pairs), made, metric)
        sheet = recipe.out / "pictures"
        sheet.mkdir(exist_ok=True)
        for i in range(min(SHOWN, len(pairs))):
            made[i].save(sheet / f"{mark:05d}-{i}.png")
        print(
            f"{recipe.out.name} step {mark}: {metric} {span(measures.figure(followed, metric))}",
            flush=True,
        )
        return {
            "own": measures.figure(followed, metric),
            "lift": measures.better_by(followed, other, metric),
            "pictures": len(pairs),
            "cpu_seconds": sum(make.costs.values()) - before,
        }

    def enough(mark: int) -> bool:
        start = began(Path(recipe.out)) if ends else None
        return start is not None and mark >= 1.5 * start.step + 200

    return looks(recipe, marks, look, enough)


def began(folder: Path) -> Convergence | None:
    """Where the run's measurements say that the hint began to be followed."""
    lines = [line for line in RunLog(folder / "log.jsonl").read() if "validation" in line]
    history = [
        Measured(
            line["step"], *(line["validation"][name] for name in ("gain", "gain_error", "true"))
        )
        for line in lines
    ]
    return detect(history)


def losses(folder: Path) -> list[tuple[float, float]]:
    """(step, training loss), means over the steps since the last line of the log."""
    return [
        (line["step"], line["loss"]) for line in RunLog(folder / "log.jsonl").read() if "lr" in line
    ]


def rise(curve: list[tuple[int, float]]) -> tuple[int, int]:
    """The last step below a fifth of the rise from the first to the highest value, and the first
    above four fifths.
    """
    low, high = curve[0][1], max(value for _, value in curve)
    after = next(step for step, value in curve if value >= low + 0.8 * (high - low))
    before = max(
        (step for step, value in curve if step <= after and value <= low + 0.2 * (high - low)),
        default=0,
    )
    return before, after


def draw(folder: Path, pairs: list[Pair], marks: list[int], path: Path) -> None:
    shown = (
        marks if len(marks) <= 11 else [marks[round(i * (len(marks) - 1) / 10)] for i in range(11)]
    )
    rows = []
    for i in range(min(SHOWN, len(pairs))):
        made = [Image.open(folder / "pictures" / f"{mark:05d}-{i}.png") for mark in shown]
        rows.append(("", [pairs[i].hint, *made, pairs[i].image]))
    draw_sheet(
        rows, path, ["hint", *(f"step {mark}" for mark in shown), "real picture"], label_width=4
    )


def claims(results: dict[str, dict[str, Any]], batch: int = 32) -> list[Claim]:
    """Of the runs with `batch`, and of batch sizes.

    Sudden: most of the rise takes no longer than nothing happened before it, however long the run
    went on. Of batch sizes, every run of the larger must begin before any of the smaller.
    """
    seeds = {name: it for name, it in results.items() if it["batch"] == batch}
    spans = {name: it["rise"][1] - it["rise"][0] for name, it in seeds.items()}
    starts: dict[int, list[int]] = {}
    for it in results.values():
        if it["start"]:
            starts.setdefault(it["batch"], []).append(it["start"].step)
    everywhere = all(it["start"] for it in results.values())
    quiet = {name: it["start"].step if it["start"] else it["steps"] for name, it in seeds.items()}
    sudden = [
        f"{name}: most of the rise in {spans[name]} steps after {quiet[name]} without any"
        for name in seeds
    ]
    ordered = [steps for _, steps in sorted(starts.items())]
    batches = [
        f"batch {size}: step {', '.join(map(str, steps))}, {np.mean(steps) * size:,.0f} pictures"
        for size, steps in sorted(starts.items())
    ]
    return [
        Claim(
            "the model begins to follow the hint suddenly, not gradually",
            "; ".join(sudden),
            all(it["start"] and spans[name] <= quiet[name] for name, it in seeds.items()),
        ),
        Claim(
            "the training loss does not show it (the authors' notes)",
            "; ".join(f"{name}: {loss_text(it)}" for name, it in seeds.items()),
            all(hidden(it) for it in seeds.values()),
        ),
        Claim(
            "a larger batch gets there in fewer steps (the authors' advice: spend on the batch, "
            "not on steps)",
            "; ".join(batches),
            everywhere and len(starts) > 1 and all(min(a) > max(b) for a, b in pairwise(ordered)),
        ),
    ]


def loss_around(it: dict[str, Any]) -> tuple[float, float, float]:
    """Mean training loss until the hint began to be followed and after it was, and how single
    points scatter before.
    """
    edge = it["start"].step if it["start"] else it["steps"]
    before = [value for step, value in it["loss"] if step <= edge]
    after = [value for step, value in it["loss"] if step > it["rise"][1]]
    if len(before) < 3 or not after:
        return float("nan"), float("nan"), float("nan")
    return float(np.mean(before)), float(np.mean(after)), float(np.std(before, ddof=1))


def loss_text(it: dict[str, Any]) -> str:
    before, after, scatter = loss_around(it)
    return f"{before:.3f} before, {after:.3f} after, single points scatter by {scatter:.3f}"


def hidden(it: dict[str, Any]) -> bool:
    """Whether the loss falls by less than twice the scatter of its points."""
    before, after, scatter = loss_around(it)
    return before - after < 2 * scatter
