"""Figure 4: training follows the hint all at once. Hint gain and fidelity against the step, for
seeds and batch sizes.

Every run has a constant rate and pauses every few steps to make test pictures. `python -m
experiments.fig04_convergence [--seeds 3] [--steps 150] [--batches 8,128]`
"""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments import measures
from experiments.common import MAIN, Claim, maker_of, options, span, write_result
from experiments.memory import Maker
from experiments.sheets import draw_chart, draw_sheet
from experiments.training import gains, looks, prepare
from zeroconv.evaluation.pairs import Pair, load_pairs
from zeroconv.generation import Control
from zeroconv.training.measuring.convergence import Convergence, Measured, detect
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reporting.log import RunLog
from zeroconv.training.trainer import Trainer

CONDITION = "canny"
BATCH = 32  # of the runs that differ by their seed
SHOWN = 2  # scenes of the contact sheet


def follow(
    recipe: Recipe, marks: list[int], pairs: list[Pair], make: Maker
) -> dict[int, dict[str, Any]]:
    """Train, and measure at every mark: fidelity, what it is above another's hint's, and what its
    pictures cost.
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
            "cpu_seconds": sum(make.costs.values()) - before,
        }

    return looks(recipe, marks, look)


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


def recipes_of(arguments: Any) -> dict[str, tuple[Recipe, int]]:
    """Name → (recipe, steps): seeds at one batch size, then other batch sizes with about as many
    pictures.
    """
    batches = [int(batch) for batch in arguments.batches.split(",") if batch]
    runs = [
        (f"seed {seed}, batch {BATCH}", seed, BATCH, arguments.steps)
        for seed in range(arguments.seeds)
    ]
    for batch in batches:
        # larger ones need fewer steps, but not as many fewer as they are larger: half of
        # the way in powers
        steps = round(arguments.steps * (BATCH / batch) ** 0.5 / arguments.every) * arguments.every
        runs.append((f"seed 0, batch {batch}", 0, batch, max(arguments.every, steps)))
    recipes = {}
    for name, seed, batch, steps in runs:
        settings = {
            "training__batch_size": batch,
            "training__validate_every": arguments.validate_every,
            "training__log_every": arguments.validate_every,
            "training__keep": 1,
            "training__checkpoint_every": arguments.every,
            "data__train": f'["playroom:train:{arguments.scenes}"]',
        }
        # where it pauses, and for how many pictures, is no part of a recipe; what is past
        # cannot be measured any more
        folder = f"seed-{seed}-batch-{batch}-every-{arguments.every}-count-{arguments.count}"
        recipes[name] = prepare("fig04", folder, seed, steps, **settings), steps
    return recipes


def main() -> None:
    arguments = options(
        __doc__,
        24,
        seeds=(3, "trainings at batch 32"),
        steps=(150, "steps of these"),
        every=(15, "steps between test pictures"),
        validate_every=(5, "steps between measurements of the hint gain"),
        batches=("8,128", "other batch sizes, with commas"),
        scenes=(3072, "scenes to train on"),
    )
    make, metric = maker_of(arguments), MAIN[CONDITION]
    pairs = load_pairs("playroom:test", CONDITION, arguments.count, make.backbone.default_size)
    rows, details, results = [], {}, {}
    panels: list[tuple[str, dict[str, list]]] = [
        ("hint gain", {}),
        (f"{metric}", {}),
        ("training loss", {}),
    ]
    recipes = recipes_of(arguments)
    if arguments.fresh:  # pictures are made as training goes on
        for recipe, _ in recipes.values():
            shutil.rmtree(recipe.out, ignore_errors=True)
    made = [0, 0.0]  # pictures, and CPU seconds of them, whenever they were made
    for name, (recipe, steps) in recipes.items():
        fidelity = follow(recipe, list(range(0, steps + 1, arguments.every)), pairs, make)
        folder = Path(recipe.out)
        start, gain, loss = began(folder), gains(folder), losses(folder)
        made[0] += len(pairs) * len(fidelity)
        made[1] += sum(it["cpu_seconds"] for it in fidelity.values())
        curves: list[list[tuple[float, float]]] = [
            [(step, value) for step, value, _ in gain],
            [(s, f["own"]["mean"]) for s, f in fidelity.items()],
            loss,
        ]
        for (_, panel), curve in zip(panels, curves, strict=True):
            panel[name] = [(float(x), y) for x, y in curve]
        batch = recipe.training.batch_size
        first, last = fidelity[0]["own"], fidelity[max(fidelity)]["own"]
        risen = rise([(s, f["own"]["mean"]) for s, f in fidelity.items()])
        cells: list[Any] = (
            ["not within the run", "–", "–"]
            if start is None
            else [start.step, start.seen, start.step * batch]
        )
        rows.append([name, *cells, f"{risen[0]} to {risen[1]}", span(first), span(last)])
        results[name] = {
            "start": start,
            "rise": risen,
            "batch": batch,
            "loss": loss,
            "steps": steps,
        }
        details[name] = {
            "gain": gain,
            "fidelity": fidelity,
            "began": start and start.as_dict(),
            "loss": loss,
        }
    recipe, steps = next(iter(recipes.values()))
    marks = list(range(0, steps + 1, arguments.every))
    draw(Path(recipe.out), pairs, marks, arguments.pictures / "fig04.jpg")
    draw_chart(panels, arguments.pictures / "fig04-curves.png", "step")
    columns = ["", "hint gain rises from step", "settled at step", "pictures seen when it rises"]
    columns += [
        "fidelity goes from a fifth to four fifths of its rise in steps",
        f"{metric} at step 0",
        "at the end",
    ]
    note = (
        f"Canny, Muon 1e-3 at a constant rate, {arguments.scenes:,} scenes; hint gain every "
        f"{arguments.validate_every} steps on 64 held-out scenes, fidelity every {arguments.every} "
        f"on {arguments.count} test scenes with their own captions (averaged weights, 12 UniPC "
        "steps, guidance `cond`, cfg 4); 95% intervals."
    )
    captions = [
        "fig04-curves.png: hint gain, fidelity and training loss against the step",
        "fig04.jpg: two test scenes as training goes on, the same noise throughout (first seed)",
    ]
    write_result(
        "fig04", columns, rows, claims(results), note=note, pictures=captions, details=details,
        made=(int(made[0]), made[1]), folder=arguments.out,
    )  # fmt: skip


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


def claims(results: dict[str, dict[str, Any]]) -> list[Claim]:
    """Sudden: most of the rise takes no longer than nothing happened before it, however long the
    run went on. Of batch sizes, every run of the larger must begin before any of the smaller.
    """
    seeds = {name: it for name, it in results.items() if it["batch"] == BATCH}
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
        f"batch {batch}: step {', '.join(map(str, steps))}, {np.mean(steps) * batch:,.0f} pictures"
        for batch, steps in sorted(starts.items())
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


if __name__ == "__main__":
    main()
