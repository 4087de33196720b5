"""Why ControlNet-lite is so close in figure 8: full copy, lite and small copies over rates, lengths
and widths.

From one centre (canny, Muon 1e-3 at a constant rate, averaged weights) the learning rate, the
length of training and the width of the copy are changed one at a time. Small copies are
ControlNet-XS's, of 0.25 and 0.5 of the channels: they see latent, step and prompt as the copy does,
but start from random weights and look at the frozen encoder too. `python -m experiments.lite
[--steps 96] [--rates 3e-4,1e-3,3e-3] [--only full-0.001,lite-0.001]`; --only trains these runs and
stops, so that several processes can share the work. Goes on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments import measures
from experiments.common import (
    MAIN,
    Claim,
    maker_of,
    options,
    shown_options,
    signed,
    span,
    write_result,
)
from experiments.memory import Maker
from experiments.racing import WIDTHS
from experiments.sheets import draw_chart, draw_sheet
from experiments.training import gains, looks, prepare
from zeroconv.evaluation.fidelity import prompts_of
from zeroconv.evaluation.pairs import Pair, load_pairs
from zeroconv.generation import Control
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.trainer import Trainer

CONDITION = "canny"
CENTRE = 1e-3  # the recipe's rate
# those that leave something to the hint
PROMPTS = {"empty": "no prompt", "insufficient": "insufficient prompt"}
PHRASES = {"empty": "with no prompt", "insufficient": "with an insufficient prompt"}
WORDS = {
    "full": "full copy",
    "lite": "ControlNet-lite",
    "xs-0.25": "small copy, 0.25",
    "xs-0.5": "small copy, 0.5",
}
SENTENCE = (
    "without a sufficient prompt the full copy follows the hint better than ControlNet-lite (each "
    "at the rate that suits it best)"
)
SHOWN = 3  # scenes of the contact sheet

Stats = dict[str, list[np.ndarray]]  # prompt setting → what each picture contributes
Results = dict[tuple[str, float, int], Stats]  # network, rate, step


def runs_of(arguments: Any) -> dict[tuple[str, float], tuple[Recipe, list[int]]]:
    """(network, rate) → its recipe and the steps at which it is looked at: all lengths at the
    centre, elsewhere one.
    """
    lengths = [arguments.steps // 2, arguments.steps, arguments.steps * 2]
    places = [("full", CENTRE), ("lite", CENTRE)]
    rates = [float(rate) for rate in arguments.rates.split(",")]
    places += [(name, rate) for rate in rates if rate != CENTRE for name in ("full", "lite")]
    places += [(f"xs-{float(width):g}", CENTRE) for width in arguments.widths.split(",") if width]
    runs = {}
    for name, rate in places:
        marks = lengths if name in ("full", "lite") and rate == CENTRE else [arguments.steps]
        settings: dict[str, Any] = {
            "training__batch_size": arguments.train_batch,
            "training__learning_rate": rate,
            "training__keep": 1,
            "training__validate_every": max(1, arguments.steps // 8),
            "training__checkpoint_every": 24,
            "data__train": f'["playroom:train:{arguments.scenes}"]',
        }
        if name.startswith("xs"):
            options = {"ratio": float(name[3:]), "hint_widths": WIDTHS}
            settings["control"] = json.dumps({"kind": "controlnet_xs", "options": options})
        else:
            settings["control__connections"] = {"full": "zero", "lite": "lite"}[name]
        # how many pictures are made at the stops is no part of a recipe; what is past
        # cannot be made any more
        recipe = prepare(
            "lite",
            f"{name}-{rate:g}-count-{arguments.count}",
            arguments.seed,
            max(marks),
            **settings,
        )
        runs[name, rate] = recipe, marks
    return runs


def follow(
    recipe: Recipe, marks: list[int], pairs: list[Pair], make: Maker
) -> dict[int, dict[str, Any]]:
    """Train, and measure at every mark; the pictures of the sheet are kept in the run's folder."""
    metric = MAIN[CONDITION]

    def look(mark: int, trainer: Trainer) -> dict[str, Any]:
        here: dict[str, Any] = {}
        before = sum(make.costs.values())
        for setting in PROMPTS:
            control = Control(trainer.control, [pair.hint for pair in pairs])
            made = make(prompts_of(pairs, setting), [control])
            for name, asked in (("own", pairs), ("another's", measures.shuffled(pairs))):
                stats = measures.fidelity(CONDITION, asked, made, metric)
                here[f"{setting}, {name}"] = [np.asarray(one).tolist() for one in stats]
            for i in range(min(SHOWN, len(pairs))):
                made[i].save(recipe.out / f"made-{mark:05d}-{setting}-{i}.png")
        here["cpu_seconds"] = sum(make.costs.values()) - before
        here["parameters"] = sum(p.numel() for p in trainer.control.parameters() if p.requires_grad)
        print(
            f"{recipe.out.name} step {mark}: "
            f"{span(measures.figure(stats_of(here)['empty'], metric))}",
            flush=True,
        )
        return here

    return looks(recipe, marks, look)


def stats_of(here: dict[str, Any], whose: str = "own") -> Stats:
    return {setting: [np.array(one) for one in here[f"{setting}, {whose}"]] for setting in PROMPTS}


def main() -> None:
    arguments = options(
        __doc__,
        80,
        steps=(96, "steps of training; at the centre half and twice as many too"),
        seed=(0, "of all"),
        rates=("3e-4,1e-3,3e-3", "learning rates"),
        widths=("0.25,0.5", "of small copies"),
        train_batch=(32, "batch of the training"),
        scenes=(3072, "scenes to train on"),
        only=("", "train these only"),
    )
    make, metric = maker_of(arguments), MAIN[CONDITION]
    pairs = load_pairs("playroom:test", CONDITION, arguments.count, make.backbone.default_size)
    runs = runs_of(arguments)
    only = [name for name in arguments.only.split(",") if name]
    if unknown := set(only) - {f"{name}-{rate:g}" for name, rate in runs}:
        known = ", ".join(f"{name}-{rate:g}" for name, rate in runs)
        raise SystemExit(f"zeroconv: --only names {', '.join(sorted(unknown))}; there is {known}")
    kept = {
        key: follow(recipe, marks, pairs, make)
        for key, (recipe, marks) in runs.items()
        if not only or f"{key[0]}-{key[1]:g}" in only
    }
    if not only:
        report(arguments, runs, kept, pairs, metric)


def _gain_at(curve: list[tuple[int, float, float]], mark: int) -> float:
    """The hint gain of a curve at a step; NaN where it was not measured there."""
    return next((gain for step, gain, _ in curve if step == mark), float("nan"))


def report(
    arguments: Any,
    runs: dict,
    kept: dict[tuple[str, float], dict[int, dict]],
    pairs: list,
    metric: str,
) -> None:
    results, worth = {}, {}
    for (name, rate), (_, marks) in runs.items():
        for mark in marks:
            here = kept[name, rate][mark]
            results[name, rate, mark], worth[name, rate, mark] = (
                stats_of(here),
                stats_of(here, "another's"),
            )
    curves = {(name, rate): gains(recipe.out) for (name, rate), (recipe, _) in runs.items()}
    rows: list[list] = []
    for (name, rate, mark), scores in results.items():
        rows.append(
            [
                WORDS.get(name, name),
                f"{rate:g}",
                mark,
                f"{kept[name, rate][mark]['parameters'] / 1e6:.2f} M",
            ]
        )
        rows[-1].append(f"{_gain_at(curves[name, rate], mark):+.4f}")
        for setting in PROMPTS:
            rows[-1].append(span(measures.figure(scores[setting], metric)))
            full = results["full", rate, mark]
            ahead = measures.better_by(full[setting], scores[setting], metric)
            rows[-1].append("–" if name == "full" else signed(ahead))
    columns = ["", "rate", "steps", "parameters", "hint gain"]
    for meaning in PROMPTS.values():
        columns += [f"{metric}, {meaning}", "full copy ahead by"]
    draw_curves(runs, curves, results, metric, arguments.pictures / "fig08-lite-curves.png")
    draw(runs, pairs, arguments)
    made = [here for one in kept.values() for here in one.values()]
    note = (
        f"Canny, batch {arguments.train_batch}, {arguments.scenes:,} scenes, Muon at a constant "
        f"rate, averaged weights, half of the prompts empty, training seed {arguments.seed}; n = "
        f"{arguments.count} test scenes, 12 UniPC steps, guidance `cond`, cfg 4. 95% intervals "
        "over pictures, not over trainings; differences paired."
    )
    write_result(
        "fig08-lite",
        columns,
        rows,
        claims(results, worth, metric, arguments.steps),
        note=note,
        pictures=[
            "fig08-lite-curves.png: hint gain against the step, and fidelity where it was "
            "measured three times",
            "fig08-lite.jpg: the same hints and seeds without a prompt, through every network at "
            "its last step",
        ],
        details={"gains": {f"{name}-{rate:g}": curve for (name, rate), curve in curves.items()}},
        made=(
            len(made) * len(PROMPTS) * arguments.count,
            sum(here["cpu_seconds"] for here in made),
        ),
        folder=arguments.out,
        command=" ".join(["python -m experiments.lite", *shown_options()]),
    )


def draw_curves(runs: dict, curves: dict, results: Results, metric: str, path: Path) -> None:
    """Hint gain of every run against the step; of those that were looked at several times, fidelity
    too.
    """
    gained, fidelity = {}, {}
    for (name, rate), (_, marks) in runs.items():
        label = f"{WORDS.get(name, name)}, {rate:g}"
        gained[label] = [(float(step), gain) for step, gain, _ in curves[name, rate]]
        if len(marks) > 1:
            means = [
                measures.figure(results[name, rate, mark]["empty"], metric)["mean"]
                for mark in marks
            ]
            fidelity[label] = list(zip(map(float, marks), means, strict=True))
    draw_chart([("hint gain", gained), (f"{metric}, no prompt", fidelity)], path, "step")


def draw(runs: dict, pairs: list[Pair], arguments: Any) -> None:
    last = min(SHOWN, len(pairs))
    rows: list = []
    for (name, rate), (recipe, marks) in runs.items():
        made = [
            Image.open(Path(recipe.out) / f"made-{max(marks):05d}-empty-{i}.png")
            for i in range(last)
        ]
        rows.append(
            (
                f"{name} {rate:g}\n{max(marks)} steps",
                [p for i in range(last) for p in (pairs[i].hint, made[i])],
            )
        )
    rows.append(("real", [p for i in range(last) for p in (None, pairs[i].image)]))
    draw_sheet(
        rows, arguments.pictures / "fig08-lite.jpg", ["hint", "no prompt"] * last, label_width=92
    )


def claims(results: Results, worth: Results, metric: str, steps: int) -> list[Claim]:
    """The paper's sentence on lite, asked at every rate and at every length, and with each network
    at its best rate.
    """
    rates = sorted({rate for name, rate, mark in results if name == "full" and mark == steps})
    lengths = sorted({mark for name, rate, mark in results if name == "full" and rate == CENTRE})

    def ahead(first: tuple, second: tuple, setting: str) -> dict[str, float]:
        return measures.better_by(results[first][setting], results[second][setting], metric)

    def best(name: str, setting: str) -> tuple[str, float, int]:
        return max(
            ((name, rate, steps) for rate in rates),
            key=lambda key: measures.figure(results[key][setting], metric)["mean"],
        )

    made = []
    for words, places in (
        (
            "learning rate",
            [(f"{rate:g}", ("full", rate, steps), ("lite", rate, steps)) for rate in rates],
        ),
        (
            "length of training",
            [(f"{n} steps", ("full", CENTRE, n), ("lite", CENTRE, n)) for n in lengths],
        ),
    ):
        for setting in PROMPTS:
            apart = {label: ahead(full, lite, setting) for label, full, lite in places}
            made.append(
                Claim(
                    f"(our question) {PHRASES[setting]} the full copy is ahead of ControlNet-lite "
                    f"at every {words}",
                    f"{metric}: "
                    + "; ".join(f"{label}: {signed(it)}" for label, it in apart.items()),
                    all(it["low"] > 0 for it in apart.values()),
                )
            )
    texts, lacks = [], []
    for setting, meaning in PROMPTS.items():
        full, lite = best("full", setting), best("lite", setting)
        it = ahead(full, lite, setting)
        lift = measures.better_by(results[full][setting], worth[full][setting], metric)["mean"]
        texts.append(
            f"{meaning}: {signed(it)} (full at {full[1]:g}, lite at {lite[1]:g}), "
            f"{it['mean'] / lift:.0%} of what the hint is worth"
        )
        lacks.append(it["low"] > 0)
    made.append(Claim(SENTENCE, f"{metric}: {'; '.join(texts)}", all(lacks)))
    return made


if __name__ == "__main__":
    main()
