"""Figure 9 and tables 1 to 3: ControlNet beside other ways to make a frozen model follow a hint.

python -m experiments.fig09_baselines [--steps 240] [--count 100] [--only controlnet,lora]
[--tune 40] [--gauge 8]

Every network learns the same canny hints of the same pictures in the same batches, with the same
noise and loss: that of recipes/playroom-canny.yaml, at a constant rate with averaged weights, so
that a run may be looked at anywhere. Each is measured twice: after `--steps` steps, and after as
many as take the time of ControlNet's. Before that, `--tune` steps with each optimiser choose its
own (lowest loss on validation scenes with the true hint); the winner goes on from there. `--gauge`
first times a few steps of all networks by turns in one process: on an idle machine these are the
paces that equal time is reckoned with, and what else runs later does no harm. Goes on where it was
stopped.

The paper had people rank pictures of four methods; here metrics stand in their place: whether the
hint can be read back from the picture (canny F1), how close pictures are to real ones (FID of the
playroom reader's features), and whether colours are those of the caption. Of the paper's own
baselines only ControlNet-lite is among these: PITI, Sketch-Guided Diffusion, VQGAN and LDM have no
published weights or code for a base like this one. In their place stand its related work
(hypernetworks, additive learning, LoRA, T2I-Adapter) and what came after it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.common import PICTURES, RESULTS, RUNS, Claim, span, write_result
from experiments.memory import weights_mark
from experiments.racing import (
    CANDIDATES,
    ENTRIES,
    choose,
    gauge,
    leg,
    pace_file,
    train_both,
    train_leg,
)
from experiments.sheets import draw_sheet
from tools.reports import read_json, write_json
from zeroconv.files import atomic_write

METRIC = "f1_1px"
SHOWN = 6  # test scenes of the contact sheet


def main() -> None:
    arguments = parse()
    if arguments.worker:
        train_leg(json.loads(arguments.worker))
        return
    runs = RUNS / "fig09" / run_name(arguments)
    if arguments.fresh:
        shutil.rmtree(runs, ignore_errors=True)
    names = [
        name for name in ENTRIES if name in arguments.only.split(",") or arguments.only == "all"
    ]
    if "controlnet" not in names:
        sys.exit(
            "zeroconv: --only must name controlnet too: its time is the measure of the others'"
        )
    if arguments.count < 4:
        sys.exit(f"zeroconv: --count is {arguments.count}; an FID needs at least 4 pictures")
    # fills the cache, so that no run pays for it
    if not (runs / "cache" / "summary.json").is_file():
        leg(runs / "cache", arguments, "controlnet", CANDIDATES[0], steps=1)
    if arguments.gauge and not all(
        pace_file(runs, name, c).is_file() for name in names for c in CANDIDATES
    ):
        gauge(runs, names, arguments)
    results: dict[str, Any] = {}
    for name in names:
        chosen = choose(runs, name, arguments)
        first = results["controlnet"]["legs"]["steps"]["seconds_a_step"] if results else None
        legs = train_both(runs, arguments, name, chosen, first)
        same = legs["steps"]["steps"] == legs["time"]["steps"]  # one network, measured once
        reports = {
            which: measure(runs / name, which, arguments, bool(results), same) for which in legs
        }
        results[name] = {"optimizer": list(chosen), "legs": legs, "reports": reports}
        print(
            f"{name}: {chosen[0]} {chosen[1]:g}",
            {w: round(mean(r), 4) for w, r in reports.items()},
            flush=True,
        )
    write(results, runs, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--batch", type=int, default=32, help="pictures a step")
    parser.add_argument(
        "--tune",
        type=int,
        default=40,
        help="steps a candidate optimiser; 0: take Muon 1e-3 for all",
    )
    parser.add_argument(
        "--gauge",
        type=int,
        default=0,
        help="steps that time every network first, by turns; 0: none",
    )
    parser.add_argument("--count", type=int, default=100, help="test scenes")
    parser.add_argument("--sampling-steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16, help="pictures made at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="all", help=f"of {', '.join(ENTRIES)}")
    parser.add_argument("--data", default="playroom:train:3072", help="training pictures")
    parser.add_argument("--validation", default="playroom:val:64")
    parser.add_argument(
        "--fresh", action="store_true", help="train and measure anew, whatever is there"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_name(arguments: argparse.Namespace) -> str:
    """Of the folder: everything that decides what is trained in it."""
    rest = [
        arguments.data,
        arguments.validation,
        arguments.tune,
        arguments.gauge,
        weights_mark("playroom"),
    ]
    mark = hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:8]
    return f"steps-{arguments.steps}-batch-{arguments.batch}-seed-{arguments.seed}-{mark}"


# ---------------------------------------------------------------- measuring


def measure(
    folder: Path, which: str, arguments: argparse.Namespace, known: bool, same: bool = False
) -> dict[str, Any]:
    """The report of `evaluate`, with every picture's score; pictures of the sheet beside it.
    `known`: pictures without control need not be made again. `same`: what was found at equal steps
    is what there is at equal time.
    """
    from zeroconv.evaluation import evaluate

    path = folder / f"report-{which}-{arguments.count}-{arguments.sampling_steps}.json"
    if same and which == "time":
        for i in range(min(SHOWN, arguments.count)):
            shutil.copy(folder / f"made-steps-{i}.png", folder / f"made-time-{i}.png")
        return measure(folder, "steps", arguments, known)
    if not path.is_file():
        shown: list = []
        report = evaluate(
            str(folder / f"at-{which}"),
            count=arguments.count,
            count_none=0 if known else arguments.count,
            guidance="cond",
            cfg=4.0,
            steps=arguments.sampling_steps,
            batch_size=arguments.batch_size,
            varied=0,
            pictures=shown,
        )
        for i, (pair, made) in enumerate(
            list(zip(shown[0].pairs, shown[0].made, strict=True))[:SHOWN]
        ):
            for kind, picture in (
                ("hint", pair.hint),
                ("real", pair.image),
                (f"made-{which}", made),
            ):
                with atomic_write(folder / f"{kind}-{i}.png") as temporary:
                    picture.convert("RGB").save(temporary, format="PNG")
        write_json(
            path,
            {
                **report,
                "scores": [float(s[METRIC]) for s in shown[0].scores],
                "parameters": size(folder),
            },
        )
    return read_json(path)


def size(folder: Path) -> int:
    """Numbers that a network trained: all that its folder holds."""
    from safetensors import safe_open

    with safe_open(
        folder / "at-steps" / "diffusion_pytorch_model.safetensors", framework="pt"
    ) as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)


def mean(report: dict[str, Any]) -> float:
    return report["metrics"][METRIC]["own"]["mean"]


def ahead(results: dict[str, Any], name: str, which: str) -> dict[str, float]:
    """ControlNet's F1 minus this one's, of the same hints, with its interval."""
    from zeroconv.evaluation.metrics import paired_interval

    return paired_interval(
        results["controlnet"]["reports"][which]["scores"], results[name]["reports"][which]["scores"]
    )


# ---------------------------------------------------------------- the table, the claims, the sheet


def write(results: dict[str, Any], runs: Path, arguments: argparse.Namespace) -> None:
    columns = [
        "",
        "trained parameters",
        "optimiser",
        "s a step",
        "peak MB",
        "hint gain",
        "canny F1, equal steps",
        "FID",
        "caption's colours",
        "steps in equal time",
        "canny F1, equal time",
        "ControlNet ahead by, equal steps",
    ]
    rows = [row_of(results, name) for name in results]
    rows.append(limits(results))
    for name in ("steps", "time"):
        sheet(results, runs, name, arguments.pictures / f"fig09-{name}.jpg")
    minutes = arguments.steps * (results["controlnet"]["legs"]["steps"]["seconds_a_step"] or 0) / 60
    note = (
        f"{arguments.steps} steps of {arguments.batch} scenes, constant rate, averaged weights; "
        f"equal time: {minutes:.1f} minutes, ControlNet's. {arguments.count} test scenes, own "
        f"captions, guidance cond, cfg 4, {arguments.sampling_steps} steps; 95% intervals. The "
        f"optimiser is the best of {', '.join(f'{k} {r:g}' for k, r in CANDIDATES)} after "
        f"{arguments.tune} steps. Peak memory is the whole training process's. Metrics stand where "
        "the paper had people rank; one seed."
    )
    captions = [
        f"fig09-steps.jpg: the same test hints after {arguments.steps} steps of each",
        f"fig09-time.jpg: after {minutes:.1f} minutes of each",
    ]
    write_result(
        "fig09",
        columns,
        rows,
        claims(results),
        note=note,
        pictures=captions,
        details=results,
        folder=arguments.out,
        command="python -m experiments.fig09_baselines " + " ".join(sys.argv[1:]),
    )


def row_of(results: dict[str, Any], name: str) -> list[Any]:
    one = results[name]
    steps, report, later = one["legs"]["steps"], one["reports"]["steps"], one["reports"]["time"]
    pace, fid = steps["seconds_a_step"], report["pictures"]["fid"].get("own")
    return [
        f"{ENTRIES[name].label} ({ENTRIES[name].source})",
        f"{report['parameters']:,}",
        f"{one['optimizer'][0]} {one['optimizer'][1]:g}",
        "–" if pace is None else round(pace, 2),
        steps["peak_memory_mb"],
        f"{steps['validation']['gain']:+.4f}",
        span(report["metrics"][METRIC]["own"]),
        span(fid, 1),
        span(colours(report, "own")),
        one["legs"]["time"]["steps"],
        span(later["metrics"][METRIC]["own"]),
        "–" if name == "controlnet" else span(ahead(results, name, "steps")),
    ]


def limits(results: dict[str, Any]) -> list[Any]:
    """What no control gives, and the most that the autoencoder allows."""
    report = results["controlnet"]["reports"]["steps"]
    values = report["metrics"][METRIC]
    low, high = (span(report["pictures"]["fid"].get(name), 1) for name in ("none", "ceiling"))
    f1 = f"{span(values['none'])} … {span(values['ceiling'])}"
    return [
        "no control … real pictures through the VAE",
        *["–"] * 5,
        f1,
        f"{low} … {high}",
        *["–"] * 4,
    ]


def colours(report: dict[str, Any], column: str) -> dict[str, float] | None:
    """Share of objects that have the colour of their name."""
    return report["caption"].get("object", {}).get(column)


def claims(results: dict[str, Any]) -> list[Claim]:
    """What the paper found, what these figures say, and whether the two agree."""
    made: list[Claim] = []
    if "controlnet-lite" in results:
        lead = ahead(results, "controlnet-lite", "steps")
        paper = (
            "Table 1: users ranked ControlNet's fidelity to the hint 4.28, ControlNet-lite's 4.09 "
            "(of 5)."
        )
        ours = f"At equal steps ControlNet's canny F1 is {span(lead)} above ControlNet-lite's."
        made.append(Claim(paper, ours, lead["low"] > 0))
        pair = ("controlnet", "controlnet-lite")
        full, lite = (results[name]["reports"]["steps"]["pictures"]["fid"]["own"] for name in pair)
        ours = (
            f"At equal steps ControlNet's FID is {span(full, 1)}, ControlNet-lite's "
            f"{span(lite, 1)}."
        )
        paper = "Table 3: ControlNet's FID is 15.27, ControlNet-lite's 17.92."
        made.append(Claim(paper, ours, full["high"] < lite["low"]))
    others = {name: ENTRIES[name].label for name in results if name.split("-")[0] != "controlnet"}
    paper = (
        "Figure 9, table 1: of the ways to add a hint that were compared, ControlNet's follows it "
        "best."
    )
    for which, words in (("steps", "steps"), ("time", "training time")):
        leads = {label: ahead(results, name, which) for name, label in others.items()}
        behind = [label for label, lead in leads.items() if lead["low"] > 0]
        before = [label for label, lead in leads.items() if lead["high"] < 0]
        level = [label for label in leads if label not in (*behind, *before)]
        ours = (
            f"At equal {words} ControlNet's canny F1 is above that of {listed(behind)}, below "
            f"{listed(before)}, "
        )
        made.append(
            Claim(
                paper,
                ours + f"and not to be told from {listed(level)}.",
                bool(behind) and not before,
            )
        )
    return made


def listed(names: Sequence[str]) -> str:
    return "; ".join(names) if names else "none"


def sheet(results: dict[str, Any], runs: Path, which: str, path: Path) -> None:
    """A row a test scene: hint, real picture, and what each network makes of hint and caption."""
    first, rows = runs / "controlnet", []
    for i in range(SHOWN):
        if (first / f"hint-{i}.png").is_file():
            made = [runs / name / f"made-{which}-{i}.png" for name in results]
            rows.append(
                (
                    "",
                    [
                        Image.open(file)
                        for file in (first / f"hint-{i}.png", first / f"real-{i}.png", *made)
                    ],
                )
            )
    draw_sheet(rows, path, ["hint", "real picture", *results], label_width=4)


if __name__ == "__main__":
    main()
