"""Figure 4 with the released code's settings: AdamW at a constant rate, torch's initialisation of
the hint encoder. Then one change at a time towards ours, which tells what removes the plateau.

python -m experiments.plateau [--steps 1500] [--batches 8,128] [--only "released, batch 8"]

A run ends soon after the hint is followed, or after its steps.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.common import Claim, maker_of, options, write_result
from experiments.following import COLUMNS, CONDITION, Followed, claims, draw, follow_all
from experiments.sheets import draw_chart
from experiments.training import prepare
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.training.recipes.recipe import Recipe

BATCH = 32  # of the steps towards ours
RELEASED = {
    "training__optimizer": "adamw",
    "training__learning_rate": 1e-4,
    "control__hint_init": "torch",
}
LADDER: dict[str, dict[str, Any]] = {  # each with what those before it have
    "released": RELEASED,
    "ten times the rate": {"training__learning_rate": 1e-3},
    "contrast kept": {"control__hint_init": "contrast"},
    "Muon: ours": {"training__optimizer": "muon"},
}


def recipes_of(arguments: Any) -> dict[str, tuple[Recipe, int]]:
    """Name → (recipe, steps): the released settings at each batch size, then the ladder."""
    asked: dict[str, tuple[int, dict[str, Any]]] = {}
    settings: dict[str, Any] = {}

    for name, change in LADDER.items():
        settings = {**settings, **change}
        asked[f"{name}, batch {BATCH}"] = (BATCH, settings)
    for size in [int(word) for word in arguments.batches.split(",") if word]:
        asked[f"released, batch {size}"] = (size, RELEASED)

    recipes = {}
    for name, (batch, changes) in asked.items():
        more = {
            **changes,
            "training__batch_size": batch,
            "training__validate_every": arguments.validate_every,
            "training__log_every": arguments.validate_every,
            "training__keep": 1,
            "training__checkpoint_every": arguments.every,
            "data__train": f'["playroom:train:{arguments.scenes}"]',
        }
        folder = f"{name.replace(', ', '-').replace(' ', '-').replace(':', '')}"
        folder = f"{folder}-every-{arguments.every}-count-{arguments.count}"
        recipe = prepare("fig04", folder, 0, arguments.steps, **more)
        recipes[name] = recipe, arguments.steps

    return recipes


def verdicts(followed: Followed) -> list[Claim]:
    """The paper's claims on the runs with the released settings, and which change removes the
    plateau: the one after which most pictures fewer are seen before the hint is followed.
    """
    released = {name: it for name, it in followed.results.items() if name.startswith("released")}
    papers = [
        replace(claim, paper=f"{claim.paper}, with the released settings")
        for claim in claims(released, BATCH)
    ]
    steps = {}
    for name in LADDER:
        it = followed.results.get(f"{name}, batch {BATCH}")
        if it is None:
            return papers
        steps[name] = it["start"].step if it["start"] else it["steps"]

    names = list(LADDER)
    shares = {b: steps[b] / max(1, steps[a]) for a, b in pairwise(names)}
    text = ", ".join(f"{name} {count}" for name, count in steps.items())
    least = min(shares, key=lambda name: shares[name])
    ours = Claim(
        f"(our question) what removes the plateau most is: {least}",
        f"steps until the hint gain rises: {text}",
        shares[least] < 0.5,
    )

    return [*papers, ours]


def main() -> None:
    arguments = options(
        __doc__,
        24,
        steps=(1500, "steps at most"),
        every=(50, "steps between test pictures"),
        validate_every=(10, "steps between measurements of the hint gain"),
        batches=("8,128", "other batch sizes of the released settings, with commas"),
        scenes=(3072, "scenes to train on"),
        only=("", "train and measure this run alone, and write nothing"),
    )
    make = maker_of(arguments)
    pairs = load_pairs("playroom:test", CONDITION, arguments.count, make.backbone.default_size)
    recipes = recipes_of(arguments)
    if arguments.only:
        if arguments.only not in recipes:
            raise SystemExit(f"zeroconv: there is no run {arguments.only!r}: {', '.join(recipes)}")
        follow_all({arguments.only: recipes[arguments.only]}, arguments, make, pairs, ends=True)
        return

    followed = follow_all(recipes, arguments, make, pairs, ends=True)
    recipe, _ = next(iter(recipes.values()))
    marks = sorted(followed.details[f"released, batch {BATCH}"]["fidelity"])
    draw(Path(recipe.out), pairs, marks, arguments.pictures / "fig04-released.jpg")
    draw_chart(followed.panels, arguments.pictures / "fig04-released-curves.png", "step")

    note = (
        f"Canny, {arguments.scenes:,} scenes, constant rates. Released: AdamW 1e-4, the hint "
        "encoder as torch makes it. Each later row of the ladder adds one change. Hint gain every "
        f"{arguments.validate_every} steps on 64 held-out scenes, fidelity every {arguments.every} "
        f"on {arguments.count} test scenes with their own captions; one seed."
    )
    captions = [
        "fig04-released-curves.png: the released settings and the steps towards ours",
        "fig04-released.jpg: two test scenes, the released settings, the same noise throughout",
    ]
    write_result(
        "fig04-released", COLUMNS, followed.rows, verdicts(followed), note=note,
        pictures=captions, details=followed.details,
        made=(followed.pictures, followed.cpu_seconds), folder=arguments.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
