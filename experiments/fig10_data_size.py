"""Figure 10: how many pictures training needs. The same number of steps on 100, 1,000, 10,000 and
50,000 scenes.

A run of S steps of B draws S × B pictures. Where a set is larger than that no picture comes twice,
and which of them are drawn does not matter: only so many are rendered, and all such sets are one
training. `--condition pose` and `--data stickers` write results of their own. `python -m
experiments.fig10_data_size [--steps 240] [--condition pose] [--data stickers]`
"""

from __future__ import annotations

from itertools import pairwise
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
from experiments.sheets import Row, draw_sheet
from experiments.sources import Source
from experiments.training import prepare, read_summary, trained
from zeroconv.control import ControlNet
from zeroconv.evaluation.fidelity import prompts_of
from zeroconv.generation import Control

PROMPTS = {"own": "own caption", "empty": "no prompt"}
SHOWN = 3  # scenes of the contact sheet
# the share of fidelity that the smallest set of the paper may lose to the largest without
# "collapse"
MARGIN = 0.1


def main() -> None:
    arguments = options(
        __doc__,
        100,
        steps=(240, "steps of training, for every set"),
        train_batch=(32, "batch of the training"),
        sizes=("100,1000,10000,50000", "sizes of the sets, with commas"),
        seed=(0, "of the trainings"),
        condition=("canny", "what the hints are"),
        data=("playroom", "or stickers"),
        stickers=("data/stickers", "their folder"),
    )
    drawn = arguments.steps * arguments.train_batch
    names = name_sets([int(size) for size in arguments.sizes.split(",")], drawn)
    recipes, sizes = {}, list(names)
    condition = arguments.condition
    source = Source(arguments.data, condition, arguments.stickers)
    figure = source.suffix("fig10")
    for size in sizes:
        kept = min(size, drawn)
        settings = {
            "training__batch_size": arguments.train_batch,
            "training__schedule": "cosine",
            "training__validate_every": max(1, arguments.steps // 12),
            "training__checkpoint_every": 40,
            "data__train": f'["{source.train(kept)}"]',
            **source.settings,
        }
        run = f"{source.suffix('')}-scenes-{kept}".lstrip("-")
        recipes[size] = prepare("fig10", run, arguments.seed, arguments.steps, **settings)
        trained(recipes[size])
    make, metric = maker_of(arguments), MAIN[condition]
    pairs = source.test(arguments.count, make.backbone.default_size)
    scenes, rows, results, images, details = source.scenes(pairs), [], {}, {}, {}
    for size, recipe in recipes.items():
        net = ControlNet.load(recipe.out / "control", backbone=make.backbone)
        summary = read_summary(recipe.out)
        details[str(size)] = {
            key: summary[key] for key in ("steps", "examples", "minutes", "validation", "best")
        }
        for setting, meaning in PROMPTS.items():
            made = make(prompts_of(pairs, setting), [Control(net, [pair.hint for pair in pairs])])
            images[size, setting] = made
            it: dict[str, Any] = {
                "fidelity": measures.fidelity(condition, pairs, made, metric),
                "another's": measures.fidelity(condition, measures.shuffled(pairs), made, metric),
                "kinds": None if scenes is None else measures.kinds_right(made, scenes),
            }
            results[size, setting] = it
            kid = measures.likeness(made, [pair.image for pair in pairs])
            details[str(size)][setting] = measures.figure(it["fidelity"], metric)
            lift = measures.better_by(it["fidelity"], it["another's"], metric)
            cells = [span(measures.figure(it["fidelity"], metric)), signed(lift)]
            named = "–" if it["kinds"] is None else span(measures.ratio(it["kinds"]), 2)
            cells += [named, span(kid)]
            rows.append([f"{names[size]}, {meaning}", f"{drawn / min(size, drawn):.3g}", *cells])
    last = min(SHOWN, len(pairs))
    sheet: list[Row] = [
        (names[size], [p for i in range(last) for p in (pairs[i].hint, images[size, "empty"][i])])
        for size in sizes
    ]
    sheet.append(("real", [p for i in range(last) for p in (None, pairs[i].image)]))
    draw_sheet(
        sheet, arguments.pictures / f"{figure}.jpg", ["hint", "no prompt"] * last, label_width=92
    )
    columns = ["", "times each was seen", f"{condition}, {metric}", "better than another's hint by"]
    columns += ["objects recognised", "KID ↓"]
    note = (
        f"{arguments.steps} steps of {arguments.train_batch} each, one recipe (Muon 1e-3, cosine, "
        f"half of the prompts empty); n = {arguments.count} test pictures, 12 UniPC steps, "
        "guidance `cond`, cfg 4. 95% intervals over pictures, not over trainings. A run draws "
        f"{drawn:,} pictures: larger sets, of which no picture comes twice, are one training. "
        "KID to the real pictures, in the reader's features."
    )
    caption = (
        f"{figure}.jpg: the same hints and seeds, no prompt, after training on ever more scenes"
    )
    write_result(
        figure,
        columns,
        rows,
        claims(results, sizes, metric),
        note=note,
        pictures=[caption],
        details=details,
        maker=make,
        folder=arguments.out,
        command=" ".join(["zeroconv reproduce fig10", *shown_options()]),
    )


def name_sets(sizes: list[int], drawn: int) -> dict[int, str]:
    """Size → its words; of the sizes that a run cannot draw twice from, the smallest stands for
    all.
    """
    enough = [size for size in sizes if size >= drawn]
    names = {size: f"{size:,} scenes" for size in sizes if size < drawn}
    if enough:
        names[min(enough)] = " or ".join(f"{size:,}" for size in sorted(enough)) + " scenes"
    return names


def claims(
    results: dict[tuple[int, str], dict[str, Any]], sizes: list[int], metric: str
) -> list[Claim]:
    """On the paper's 1k (or the size nearest to it) against the largest, and whether fidelity rises
    with the size.
    """
    few, most = min(sizes, key=lambda size: abs(size - 1000)), max(sizes)
    texts, stands, more, grows = [], True, [], True
    for setting, meaning in PROMPTS.items():
        small, large = results[few, setting], results[most, setting]
        lift = measures.better_by(small["fidelity"], small["another's"], metric)
        loss = measures.better_by(small["fidelity"], large["fidelity"], metric)
        stands &= (
            lift["low"] > 0
            and loss["low"] > -MARGIN * measures.figure(large["fidelity"], metric)["mean"]
        )
        texts.append(
            f"{meaning}: {signed(lift)} over another's hint, {signed(loss)} against {most:,} scenes"
        )
        steps = [
            measures.better_by(
                results[b, setting]["fidelity"], results[a, setting]["fidelity"], metric
            )
            for a, b in pairwise(sizes)
        ]
        together = measures.better_by(
            large["fidelity"], results[min(sizes), setting]["fidelity"], metric
        )
        grows &= together["low"] > 0
        more.append(
            f"{meaning}: {', '.join(signed(step) for step in steps)}, together {signed(together)}"
        )
    return [
        Claim(f"training does not collapse with {few:,} pictures", "; ".join(texts), stands),
        Claim("more data helps", f"from each size to the next, {metric}, {'; '.join(more)}", grows),
    ]


if __name__ == "__main__":
    main()
