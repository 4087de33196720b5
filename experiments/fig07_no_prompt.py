"""Figure 7: nine conditions, no prompt. Is the hint followed, and is what it shows recognised from
the hint alone?

The empty prompt stands in both halves of guidance, so they differ by the control alone. `python -m
experiments.fig07_no_prompt [--count 100]`
"""

from __future__ import annotations

from typing import Any

from experiments import measures
from experiments.common import MAIN, Claim, maker_of, options, signed, span, write_result
from experiments.memory import GUIDANCE, Maker
from experiments.sheets import draw_sheet
from zeroconv.conditions import PAPER
from zeroconv.conditions.scores import METRICS
from zeroconv.control import ControlNet
from zeroconv.evaluation.fidelity import through_vae
from zeroconv.evaluation.pairs import Pair, load_pairs
from zeroconv.generation import Control

SHOWN, SEEDS = 2, 3  # scenes of the contact sheet, pictures of each


class Scenes:
    """What conditions that are asked of the same scenes have in common: made and read once."""

    def __init__(self, pairs: list[Pair], make: Maker, only: str) -> None:
        self.scenes = measures.scenes_of(pairs)
        self.ceiling = through_vae(make.backbone, [pair.image for pair in pairs])
        self.kinds = {
            "without control": measures.kinds_right(make([""] * len(pairs)), self.scenes, only),
            "real": measures.kinds_right([pair.image for pair in pairs], self.scenes, only),
        }


# by the names of the scenes, and by what is asked for in them
Known = dict[tuple[str, ...], Scenes]


def measure(
    condition: str, count: int, make: Maker, guidance: str, known: Known
) -> tuple[dict[str, Any], list]:
    """The figures of one condition, and a row of pictures: hint, then `SEEDS` answers to it."""
    # a pose says nothing of the things beside the people
    only = "person" if condition == "pose" else ""
    pairs = load_pairs("playroom:test", condition, count, make.backbone.default_size)
    net = ControlNet.load(f"playroom-{condition}", backbone=make.backbone)
    images = make([""] * count, [Control(net, [pair.hint for pair in pairs])], guidance=guidance)
    key = (only, *(pair.name for pair in pairs))
    same = known.get(key) or known.setdefault(key, Scenes(pairs, make, only))
    metric = MAIN[condition]
    followed = measures.fidelity(condition, pairs, images, metric)
    other = measures.fidelity(condition, measures.shuffled(pairs), images, metric)
    ceiling = measures.fidelity(condition, pairs, same.ceiling, metric)
    kinds = {"own": measures.kinds_right(images, same.scenes, only), **same.kinds}
    results = {
        "metric": metric,
        "own": measures.figure(followed, metric),
        "another's": measures.figure(other, metric),
        "ceiling": measures.figure(ceiling, metric),
        "lift": measures.better_by(followed, other, metric),
        "kinds": {name: measures.ratio(stats) for name, stats in kinds.items()},
    }
    row: list = []
    for i in shown(pairs):
        seeds = [i + 10_000 * k for k in range(SEEDS)]
        row += [
            pairs[i].hint,
            *make([""] * SEEDS, [Control(net, pairs[i].hint)], seeds, guidance=guidance),
        ]
    return results, row


def shown(pairs: list[Pair]) -> list[int]:
    """The first scenes of the list that hold two things or more: chosen before any picture was
    made.
    """
    several = [
        i for i, pair in enumerate(pairs) if " and " in pair.caption or ", then " in pair.caption
    ]
    return [*several, *range(len(pairs))][:SHOWN]


def main() -> None:
    arguments = options(__doc__, 100, guidance=(GUIDANCE, "where control enters guidance"))
    make = maker_of(arguments)
    results, sheet, rows = {}, [], []
    known: Known = {}
    for condition in PAPER:
        results[condition], pictures = measure(
            condition, arguments.count, make, arguments.guidance, known
        )
        it = results[condition]
        sheet.append((f"{condition}\n{it['metric']} {it['own']['mean']:.3f}", pictures))
        sign = "" if METRICS[it["metric"]].better == "higher" else " ↓"
        cells = [span(it[name]) for name in ("own", "another's", "ceiling")]
        kinds = [span(it["kinds"][name], 2) for name in ("own", "without control", "real")]
        rows.append([f"{condition}, {it['metric']}{sign}", *cells, signed(it["lift"]), *kinds])
        print(rows[-1], flush=True)
    draw_sheet(sheet, arguments.pictures / "fig07.jpg", ["hint", "no prompt", "", ""] * SHOWN)
    columns = ["", "own hint", "another's hint", "ceiling (VAE)", "better than another's by"]
    columns += ["objects recognised", "without control", "real pictures"]
    note = (
        f"n = {arguments.count} test scenes a condition, empty prompt, 12 UniPC steps, guidance "
        f"`{arguments.guidance}`, cfg 4; 95% intervals. ↓: lower is better. Objects recognised: "
        "the reader's majority class over the pixels where the scene has an object (poses: people "
        "only)."
    )
    caption = (
        "fig07.jpg: two test scenes a row; a hint, then what three seeds make of it without any "
        "prompt"
    )
    write_result(
        "fig07",
        columns,
        rows,
        claims(results),
        note=note,
        pictures=[caption],
        details=results,
        maker=make,
        folder=arguments.out,
    )


def claims(results: dict[str, Any]) -> list[Claim]:
    followed = [name for name, it in results.items() if it["lift"]["low"] > 0]
    seen = [
        name
        for name, it in results.items()
        if it["kinds"]["own"]["low"] > it["kinds"]["without control"]["high"]
    ]
    kinds = {name: it["kinds"]["own"]["mean"] for name, it in results.items()}
    least, most = min(kinds, key=lambda name: kinds[name]), max(kinds, key=lambda name: kinds[name])
    return [
        Claim(
            "every one of the conditions controls the picture without a prompt",
            f"{len(followed)} of {len(results)} conditions are followed better than another's hint "
            "would be, the interval of the difference above zero",
            len(followed) == len(results),
        ),
        Claim(
            "what the hint shows is recognised from the hint alone",
            f"{kinds[least]:.0%} ({least}) to {kinds[most]:.0%} ({most}) of the objects come out "
            f"as what they are; {len(seen)} of {len(results)} intervals lie above that without "
            "control",
            len(seen) == len(results),
        ),
    ]


if __name__ == "__main__":
    main()
