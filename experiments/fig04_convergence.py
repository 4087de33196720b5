"""Figure 4: training follows the hint all at once. Hint gain and fidelity against the step, for
seeds and batch sizes.

Every run has a constant rate and pauses every few steps to make test pictures. `python -m
experiments.fig04_convergence [--seeds 3] [--steps 150] [--batches 8,128]`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.common import maker_of, options, write_result
from experiments.following import COLUMNS, CONDITION, claims, draw, follow_all
from experiments.sheets import draw_chart
from experiments.training import prepare
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.training.recipes.recipe import Recipe

BATCH = 32  # of the runs that differ by their seed


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
    make = maker_of(arguments)
    pairs = load_pairs("playroom:test", CONDITION, arguments.count, make.backbone.default_size)
    recipes = recipes_of(arguments)
    followed = follow_all(recipes, arguments, make, pairs)

    recipe, steps = next(iter(recipes.values()))
    marks = list(range(0, steps + 1, arguments.every))
    draw(Path(recipe.out), pairs, marks, arguments.pictures / "fig04.jpg")
    draw_chart(followed.panels, arguments.pictures / "fig04-curves.png", "step")

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
        "fig04", COLUMNS, followed.rows, claims(followed.results, BATCH), note=note,
        pictures=captions, details=followed.details,
        made=(followed.pictures, followed.cpu_seconds), folder=arguments.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
