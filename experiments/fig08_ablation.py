"""Figure 8: what the copy and its zero convolutions are for. Three networks, the paper's four
prompt settings.

full: the method. gaussian: its zero convolutions start from a Gaussian. lite: one convolution in
place of each copied block. Trained by one recipe for as many steps. The paper's own ablation is of
sketches, which leave more to be interpreted than edges: `--condition scribble` and `--data
stickers` write results of their own. `python -m experiments.fig08_ablation [--steps 240] [--seeds
1] [--condition scribble] [--data stickers] [--networks full,lite]`
"""

from __future__ import annotations

from typing import Any

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
from experiments.sheets import draw_sheet
from experiments.sources import Source
from experiments.training import prepare, read_summary, trained
from zeroconv.control import ControlNet
from zeroconv.evaluation.fidelity import prompts_of
from zeroconv.evaluation.pairs import Pair
from zeroconv.generation import Control

CONNECTIONS = {"full": "zero", "gaussian": "gaussian", "lite": "lite"}
PROMPTS = {
    "empty": "no prompt",
    "insufficient": "insufficient prompt",
    "conflicting": "conflicting prompt",
    "own": "perfect prompt",
}
SHOWN = 2  # scenes of the contact sheet
ENOUGH = 0.1  # of what a hint is worth, its own against another's: less apart is the same level

Results = dict[tuple[int, str, str], dict[str, Any]]  # training seed, network, prompt setting


def networks(arguments: Any, source: Source) -> dict[tuple[int, str], Any]:
    """The recipes of the runs, trained one after another; what is there already is kept."""
    recipes = {}
    for seed in range(arguments.seeds):
        for name in arguments.networks.split(","):
            settings: dict[str, Any] = {
                "training__batch_size": arguments.train_batch,
                "training__schedule": "cosine",
                "training__validate_every": max(1, arguments.steps // 6),
                "training__checkpoint_every": 40,
                "data__train": f'["{source.train(arguments.scenes)}"]',
                "control__connections": CONNECTIONS[name],
                **source.settings,
            }
            run = f"{source.suffix('')}-{name}-{seed}".lstrip("-")
            recipes[seed, name] = prepare("fig08", run, seed, arguments.steps, **settings)
    for recipe in recipes.values():
        trained(recipe)
    return recipes


def measure(
    net: ControlNet, condition: str, pairs: list[Pair], scenes: list | None, make: Maker
) -> tuple[dict[str, Any], dict[str, list]]:
    metric, results, images = MAIN[condition], {}, {}
    for setting in PROMPTS:
        images[setting] = made = make(
            prompts_of(pairs, setting), [Control(net, [pair.hint for pair in pairs])]
        )
        results[setting] = {
            "fidelity": measures.fidelity(condition, pairs, made, metric),
            "another's": measures.fidelity(condition, measures.shuffled(pairs), made, metric),
            "kinds": None if scenes is None else measures.kinds_right(made, scenes),
            "kid": measures.likeness(made, [pair.image for pair in pairs]),
        }
    return results, images


def main() -> None:
    arguments = options(
        __doc__,
        100,
        steps=(240, "steps of training"),
        seeds=(1, "trainings of each network"),
        train_batch=(32, "batch of the training"),
        scenes=(3072, "scenes to train on"),
        condition=("canny", "what the hints are"),
        data=("playroom", "or stickers"),
        stickers=("data/stickers", "their folder"),
        networks=(",".join(CONNECTIONS), "which, full among them"),
    )
    condition = arguments.condition
    source = Source(arguments.data, condition, arguments.stickers)
    figure = source.suffix("fig08")
    recipes = networks(arguments, source)
    make, metric = maker_of(arguments), MAIN[condition]
    pairs = source.test(arguments.count, make.backbone.default_size)
    scenes = source.scenes(pairs)
    results: Results = {}
    images, rows = {}, []
    details: dict[str, dict[str, Any]] = {}
    for (seed, name), recipe in recipes.items():
        net = ControlNet.load(recipe.out / "control", backbone=make.backbone)
        it, images[seed, name] = measure(net, condition, pairs, scenes, make)
        label = name if arguments.seeds == 1 else f"{name}, training seed {seed}"
        summary = read_summary(recipe.out)
        details[label] = {
            "trained": {key: summary[key] for key in ("steps", "samples", "minutes", "validation")}
        }
        details[label]["parameters"] = sum(p.numel() for p in net.parameters())
        for setting, meaning in PROMPTS.items():
            results[seed, name, setting] = stats = it[setting]
            lift = measures.better_by(stats["fidelity"], stats["another's"], metric)
            cells = [span(measures.figure(stats["fidelity"], metric)), signed(lift)]
            named = "–" if scenes is None else span(measures.ratio(stats["kinds"]), 2)
            cells += [named, span(stats["kid"])]
            rows.append([f"{label}, {meaning}", *cells])
            details[label][setting] = measures.figure(stats["fidelity"], metric)
    draw(images, pairs, arguments.pictures / f"{figure}.jpg")
    columns = [
        "",
        f"{condition}, {metric}",
        "better than another's hint by",
        "objects recognised",
        "KID ↓",
    ]
    note = (
        f"Networks trained for {arguments.steps} steps of {arguments.train_batch} on "
        f"{arguments.scenes:,} pictures by one recipe (Muon 1e-3, cosine, half of the prompts "
        f"empty); n = {arguments.count} test pictures, 12 UniPC steps, guidance `cond`, cfg 4. 95% "
        "intervals over pictures, not over trainings. Conflicting: the caption of another picture. "
        "KID to the real pictures, in the reader's features."
    )
    caption = (
        f"{figure}.jpg: the same hints and seeds through the networks, under the four prompt "
        "settings"
    )
    write_result(
        figure,
        columns,
        rows,
        claims(results, metric, arguments.seeds),
        note=note,
        pictures=[caption],
        details=details,
        maker=make,
        folder=arguments.out,
        command=" ".join(["zeroconv reproduce fig08", *shown_options()]),
    )


def draw(images: dict[tuple[int, str], dict[str, list]], pairs: list[Pair], path: Any) -> None:
    rows = []
    for i in range(min(SHOWN, len(pairs))):
        for name in (name for seed, name in images if seed == 0):
            made = [images[0, name][setting][i] for setting in PROMPTS]
            rows.append((name, [pairs[i].hint, *made, pairs[i].image]))
    draw_sheet(rows, path, ["hint", *PROMPTS.values(), "real picture"], label_width=72)


def claims(results: Results, metric: str, seeds: int) -> list[Claim]:
    followed, lifts = True, []
    for (_, name, setting), it in results.items():
        if name == "full":
            lift = measures.better_by(it["fidelity"], it["another's"], metric)
            followed &= lift["low"] > 0
            lifts.append(f"{PROMPTS[setting]} {signed(lift)}")
    made = [
        Claim(
            "the full method follows the hint under all four prompt settings",
            f"{metric} above that of another's hint: {'; '.join(lifts)}",
            followed,
        )
    ]
    if (0, "lite", "empty") in results:
        ahead = [
            compared(results, metric, seed, "full", "lite", setting)
            for seed, setting in asked(seeds)
        ]
        leads = "; ".join(line for line, _, _ in ahead)
        lacks = ", ".join(f"{it['mean'] / worth:.0%}" for _, it, worth in ahead)
        made += [
            Claim(
                "without a sufficient prompt the full copy follows the hint better than "
                "ControlNet-lite",
                f"full is ahead of lite by: {leads}",
                all(it["low"] > 0 for _, it, _ in ahead),
            ),
            Claim(
                "ControlNet-lite is not strong enough then",
                f"of what the hint is worth to full, lite lacks {lacks}; {ENOUGH:.0%} counts",
                all(it["low"] > 0 and it["mean"] > ENOUGH * worth for _, it, worth in ahead),
            ),
        ]
    if (0, "gaussian", "empty") in results:
        ahead = [
            compared(results, metric, seed, "full", "gaussian", setting)
            for seed, setting in asked(seeds)
        ]
        made.append(
            Claim(
                "with Gaussian convolutions the copy's start is destroyed, and the result is worse",
                f"full is ahead of gaussian by: {'; '.join(line for line, _, _ in ahead)}",
                all(it["low"] > 0 for _, it, _ in ahead),
            )
        )
    if {(0, "gaussian", "empty"), (0, "lite", "empty")} <= set(results):
        ahead = [
            compared(results, metric, seed, "lite", "gaussian", setting)
            for seed, setting in asked(seeds)
        ]
        made.append(
            Claim(
                "with Gaussian convolutions it falls to lite's level",
                f"lite is ahead of gaussian by: {'; '.join(line for line, _, _ in ahead)}",
                all(abs(it["mean"]) <= ENOUGH * worth for _, it, worth in ahead),
            )
        )
    return made


def asked(seeds: int) -> list[tuple[int, str]]:
    """The trainings, and the prompts that leave something to be read from the hint."""
    return [(seed, setting) for seed in range(seeds) for setting in ("empty", "insufficient")]


def compared(
    results: Results, metric: str, seed: int, first: str, second: str, setting: str
) -> tuple[str, dict[str, float], float]:
    """By how much one network is ahead of another: in words, the paired difference, and what full's
    hint is worth.
    """
    one, other, full = (results[seed, name, setting] for name in (first, second, "full"))
    ahead = measures.better_by(one["fidelity"], other["fidelity"], metric)
    worth = measures.better_by(full["fidelity"], full["another's"], metric)["mean"]
    line = f"{PROMPTS[setting]}: {metric} {signed(ahead)}"
    if one["kinds"] is not None:
        kinds = measures.ratio_apart(one["kinds"], other["kinds"])
        line += f", objects recognised {signed(kinds, 2)}"
    return line, ahead, worth


if __name__ == "__main__":
    main()
