"""Figure 6: two conditions in one picture, their residuals added up. Is each still followed? And
when they disagree?

Pose and depth, edges and classes; each alone, and together under several weights. Conflicting: the
first hint of one scene, the second of another. `python -m experiments.fig06_composition [--count
50]`
"""

from __future__ import annotations

from typing import Any

from experiments import measures
from experiments.common import MAIN, Claim, maker_of, options, signed, span, write_result
from experiments.memory import Maker
from experiments.sheets import draw_sheet
from zeroconv.conditions.scores import METRICS
from zeroconv.control import ControlNet
from zeroconv.evaluation.fidelity import prompts_of
from zeroconv.evaluation.metrics import paired_interval
from zeroconv.evaluation.pairs import Pair, load_pairs
from zeroconv.generation import Control

COUPLES = (("pose", "depth"), ("canny", "segmentation"))
WEIGHTS = {  # name → weights of the two
    "first alone": (1.0, 0.0),
    "second alone": (0.0, 1.0),
    "both, 1 and 1": (1.0, 1.0),
    "both, 0.7 and 0.7": (0.7, 0.7),
    "both, 0.5 and 0.5": (0.5, 0.5),
    "both, 1 and 0.5": (1.0, 0.5),
    "both, 0.5 and 1": (0.5, 1.0),
}
AGREEING = tuple(WEIGHTS)[:5]
PROMPTS = {"own": "own caption", "empty": "no prompt"}
CONFLICT = "conflicting hints"


def measure(couple: tuple[str, str], count: int, make: Maker) -> tuple[dict[str, Any], list]:
    """Setting → weights → fidelity to either hint and tones of every picture; and rows for the
    contact sheet.
    """
    person = "?only=person" if "pose" in couple else ""
    size = make.backbone.default_size
    first, second = (
        load_pairs(f"playroom:test:{count}{person}", name, count, size) for name in couple
    )
    nets = [ControlNet.load(f"playroom-{name}", backbone=make.backbone) for name in couple]
    results: dict[str, Any] = {}
    sheet: list = []
    for setting in (*PROMPTS, CONFLICT):
        wanted = (first, measures.shuffled(second) if setting == CONFLICT else second)
        prompts = prompts_of(first, "empty" if setting == CONFLICT else setting)
        made = {}
        for name in WEIGHTS if setting == CONFLICT else AGREEING:
            hinted = zip(nets, wanted, WEIGHTS[name], strict=True)
            controls = [
                Control(net, [p.hint for p in pairs], scale=weight)
                for net, pairs, weight in hinted
                if weight
            ]
            made[name] = make(prompts, controls)
        results[setting] = {
            name: scores_of(couple, wanted, images) for name, images in made.items()
        }
        print(couple, setting, flush=True)
        if setting != "own":
            for i in range(2):
                row = [
                    wanted[0][i].hint,
                    wanted[1][i].hint,
                    *(images[i] for images in made.values()),
                ]
                sheet.append((f"{' + '.join(couple)}\n{PROMPTS.get(setting, setting)}", row))
    results["real"] = [measures.tones(pair.image) for pair in first]
    return results, sheet


def scores_of(
    couple: tuple[str, str], wanted: tuple[list[Pair], list[Pair]], images: list
) -> dict[str, Any]:
    hinted = zip(couple, wanted, strict=True)
    fidelity = [measures.fidelity(name, pairs, images, MAIN[name]) for name, pairs in hinted]
    return {"fidelity": fidelity, "tones": [measures.tones(image) for image in images]}


def main() -> None:
    arguments = options(__doc__, 50)
    make = maker_of(arguments)
    rows, sheet, claims, details = [], [], [], {}
    for couple in COUPLES:
        results, pictures = measure(couple, arguments.count, make)
        rows += rows_of(couple, results)
        sheet += pictures
        claims += claims_of(couple, results)
        details[" + ".join(couple)] = {
            setting: {
                name: [
                    measures.figure(f, MAIN[c]) for c, f in zip(couple, it["fidelity"], strict=True)
                ]
                for name, it in results[setting].items()
            }
            for setting in (*PROMPTS, CONFLICT)
        }
    heads = ["first hint", "second hint", *WEIGHTS]
    draw_sheet(sheet, arguments.pictures / "fig06.jpg", heads, label_width=96)
    note = (
        f"n = {arguments.count} test scenes (pose: with a person), 12 UniPC steps, guidance "
        "`cond`, cfg 4, weights on the residuals. Conflicting: the first hint of one scene, the "
        "second of the next, no prompt. 95% intervals. ↓: lower is better. Saturation: above the "
        "real picture's, CIELAB chroma."
    )
    caption = (
        "fig06.jpg: two scenes of each couple without a prompt, then with hints of two different "
        "scenes"
    )
    write_result(
        "fig06",
        ["", "first hint followed", "second hint followed", "saturation"],
        rows,
        claims,
        note=note,
        pictures=[caption],
        details=details,
        maker=make,
        folder=arguments.out,
    )


def rows_of(couple: tuple[str, str], results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for setting in (*PROMPTS, CONFLICT):
        for name, it in results[setting].items():
            cells = []
            for condition, stats in zip(couple, it["fidelity"], strict=True):
                metric = MAIN[condition]
                sign = "" if METRICS[metric].better == "higher" else " ↓"
                cells.append(f"{metric}{sign} {span(measures.figure(stats, metric))}")
            made, real = (
                [tone["saturation"] for tone in tones] for tones in (it["tones"], results["real"])
            )
            cells.append("–" if setting == CONFLICT else signed(paired_interval(made, real), 1))
            rows.append([f"{' + '.join(couple)}, {PROMPTS.get(setting, setting)}: {name}", *cells])
    return rows


# what may be lost to the other hint, in shares of what a hint of its own is better than another's
MARGIN = 0.1


def claims_of(couple: tuple[str, str], results: dict[str, Any]) -> list[Claim]:
    """That adding up is enough, and that no weights are needed, for pictures of one scene."""
    gains, losses, halves = [], [], []
    gained = kept = same = True
    rooms = [False, False]  # whether anywhere the first, the second hint had something to add
    for setting in PROMPTS:
        it = {name: stats["fidelity"] for name, stats in results[setting].items()}
        for side, (alone, other) in enumerate(
            (("first alone", "second alone"), ("second alone", "first alone"))
        ):
            metric = MAIN[couple[side]]
            both, single, rest, half = (
                it[name][side] for name in ("both, 1 and 1", alone, other, "both, 0.5 and 0.5")
            )
            chance = results[CONFLICT][other]["fidelity"][side]  # pictures of another scene
            span_of_hint = measures.better_by(single, chance, metric)["mean"]
            gain, loss = (
                measures.better_by(both, rest, metric),
                measures.better_by(both, single, metric),
            )
            over_half = measures.better_by(both, half, metric)
            # one hint may say all that the other asks for
            room = measures.better_by(single, rest, metric)["low"] > 0
            rooms[side] |= room
            gained &= gain["low"] > 0 or not room
            kept &= loss["low"] > -MARGIN * span_of_hint
            same &= over_half["low"] > -MARGIN * span_of_hint
            where = f"({PROMPTS[setting]})"
            gains.append(
                f"{couple[side]} {metric} {signed(gain)} {where}"
                + ("" if room else ", no room for more")
            )
            losses.append(f"{couple[side]} {signed(loss)} of {span_of_hint:.3f} {where}")
            halves.append(f"{couple[side]} {signed(over_half)} {where}")
    names = " and ".join(couple)
    return [
        Claim(
            f"{names}: adding the outputs makes the picture follow both hints",
            f"better than with the other hint alone by: {'; '.join(gains)}",
            # where depth alone says all that a pose asks for, claim 2 is what can be
            # asked
            gained and any(rooms),
        ),
        Claim(
            f"{names}: neither is lost to the other",
            f"against the same hint alone, of what a hint is worth: {'; '.join(losses)}; a loss "
            f"of {MARGIN:.0%} counts",
            kept,
        ),
        Claim(
            f"{names}: no weighting is needed",
            f"weights of 1 are better than weights of a half by: {'; '.join(halves)}; being "
            f"behind by {MARGIN:.0%} of what a hint is worth counts",
            same,
        ),
    ]


if __name__ == "__main__":
    main()
