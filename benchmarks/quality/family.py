"""The shipped playroom controls: train them, pack them, measure them.

python -m benchmarks.quality.family train [CONDITION …]

    train [CONDITION …]    runs/playroom-shared, then runs/playroom-CONDITION
    pack                   runs → zeroconv/assets, each without what it shares
    measure [CONDITION …]  benchmarks/results/family/CONDITION.json and docs/pictures
    table                  benchmarks/results/family.json and each control's card
    solo                   what sharing costs: a whole canny control on as many pictures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import PICTURES, RESULTS, sheet, write_result
from tools.reports import ROOT, read_json, span, write_json
from zeroconv.conditions import CONDITIONS, PAPER
from zeroconv.conditions.scores import METRICS
from zeroconv.control import ControlNet
from zeroconv.evaluation.fidelity import COLUMNS, Shown, evaluate
from zeroconv.evaluation.page import ranked
from zeroconv.evaluation.reading import as_picture

ASSETS = ROOT / "zeroconv" / "assets"
RUNS = Path("runs")
STICKERS = "stickers:data/stickers?split={}"
DRAWN = ("canny", "lines", "softedge", "scribble", "lineart")  # hints that stickers have too
MAIN = {  # the figure a condition is judged by, and its target
    "canny": ("f1_1px", "≥ 75% of ceiling"),
    "lines": ("f1_1px", "≥ 75% of ceiling"),
    "softedge": ("ms_ssim", ""),
    "scribble": ("f1_1px", ""),
    "pose": ("pck", "≥ 0.8"),
    "segmentation": ("miou", "≥ 0.75"),
    "depth": ("delta1", "≥ 0.9"),
    "normal": ("angle", "≤ 20°"),
    "lineart": ("ms_ssim", ""),
}


def data_of(condition: str) -> dict[str, list[str]]:
    """Training and validation specs of a condition's own part."""
    people = "&only=person" if condition == "pose" else ""
    train, held = (
        [f"playroom:train:1024?start=16384{people}"],
        [f"playroom:val:64?start=256{people}"],
    )
    if condition in DRAWN:
        train.append(STICKERS.format("train") + "&limit=1024&start=5")
    return {"train": train, "validation": held}


def train(conditions: list[str]) -> None:
    from zeroconv.training import train_command

    if "shared" in conditions:
        train_command(ROOT / "recipes" / "playroom-shared.yaml")
    for condition in conditions:
        if condition == "shared":
            continue
        data = data_of(condition)
        settings = [f"data.condition={condition}", f"out={RUNS}/playroom-{condition}"]
        settings += [f"data.{name}={json.dumps(specs)}" for name, specs in data.items()]
        train_command(ROOT / "recipes" / "playroom-own.yaml", settings)


def pack() -> None:
    """Save the trained controls into the package, with what their runs say of themselves."""
    for name in ("shared", *PAPER):
        run = RUNS / f"playroom-{name}"
        control = ControlNet.load(run / "control")
        summary = read_json(run / "summary.json")
        facts = {key: summary[key] for key in ("steps", "samples", "minutes", "examples")}
        gain = (summary["validation"] or {}).get("gain")
        control.config["zeroconv"].update(
            condition=None if name == "shared" else name,
            base="playroom",
            trained={**facts, "hint_gain": gain},
        )
        shared = None if name == "shared" else ASSETS / "playroom-shared"
        clear(ASSETS / f"playroom-{name}")
        control.save(ASSETS / f"playroom-{name}", torch.float16, shared=shared)
    folders = [ASSETS / f"playroom-{name}" for name in ("shared", *PAPER)]
    size = sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))
    print(f"{size / 2**20:.1f} MiB in all")


def clear(folder: Path) -> None:
    """Remove weights and card of an older version; a folder with more in it is refused later."""
    for name in ("config.json", "diffusion_pytorch_model.safetensors", "README.md"):
        (folder / name).unlink(missing_ok=True)


def measure(conditions: list[str], arguments: argparse.Namespace) -> None:
    """One report a condition and prompt setting; best, median and worst pictures of each."""
    for condition in conditions:
        reports = []
        for prompts in arguments.prompts:
            shown: list[Shown] = []
            few = arguments.few if prompts != "own" else None
            report = evaluate(
                f"playroom-{condition}",
                count=few or arguments.count,
                prompts=prompts,
                guidance=arguments.guidance,
                count_none=arguments.none if few is None else 0,
                data=arguments.data,
                pictures=shown,
            )
            reports.append(report)
            draw(report, shown[0], PICTURES / "family" / f"{condition}-{prompts}.jpg")
        write_json(RESULTS / "family" / f"{condition}.json", reports)
        means = {
            m: {c: round(v["mean"], 3) for c, v in cs.items()}
            for m, cs in reports[0]["metrics"].items()
        }
        print(condition, json.dumps(means), flush=True)


def draw(report: dict[str, Any], shown: Shown, path: Path) -> None:
    """Three best, three median and three worst: hint, read back, made, real, from above."""
    order = ranked(shown, MAIN[report["condition"]][0])
    middle = len(order) // 2
    chosen = [*order[:3], *order[middle - 1 : middle + 2], *order[-3:]]
    rows = [
        [shown.pairs[i].hint for i in chosen],
        [as_picture(report["condition"], shown.reads[i], shown.made[i].size) for i in chosen],
        [shown.made[i] for i in chosen],
        [shown.pairs[i].image for i in chosen],
    ]
    path.parent.mkdir(exist_ok=True)
    sheet(rows, path)


def table() -> None:
    rows, counts = [], {}
    for condition in PAPER:
        path = RESULTS / "family" / f"{condition}.json"
        if not path.is_file():
            continue
        for report in read_json(path):
            metric, target = MAIN[condition]
            values, lift = report["metrics"][metric], report["lift"][metric]["over shuffled"]
            counts[report["prompts"]] = report["n"]
            sign = "" if METRICS[metric].better == "higher" else " ↓"
            prompt = PROMPTED[report["prompts"]]
            share = f"{values['own']['mean'] / values['ceiling']['mean']:.0%}" if not sign else "–"
            cells = [span(values.get(column)) for column in COLUMNS]
            rows.append(
                [f"{condition}, {metric}{sign}, {prompt}", *cells, span(lift), share, target]
            )
    columns = ["", "own hint", "another's hint", "no control", "ceiling (VAE)", "real picture"]
    columns += ["lift over another's", "of ceiling", "target"]
    captioned, empty = counts["own"], counts.get("empty", {"own": 0})
    note = (
        f"n = {captioned['own']} test scenes (no control: {captioned.get('none', 0)}; no prompt: "
        f"{empty['own']}), 12 UniPC steps, guidance `cond`, cfg 4, chosen on validation scenes; "
        "95% intervals. ↓: lower is better."
    )
    program = "python -m benchmarks.quality.family"
    write_result("family", columns, rows, f"{program} measure && {program} table", note)


def cards() -> None:
    """README.md of every control, from its config and its report."""
    for name in ("shared", *PAPER):
        folder = ASSETS / f"playroom-{name}"
        trained = read_json(folder / "config.json")["zeroconv"]["trained"]
        (folder / "README.md").write_text(card(name, trained), encoding="utf-8")


CARD = """# playroom-{name}

{what}

## How it was made

Trained by `python -m benchmarks.quality.family train {name}` ({recipe}) on a CPU: {steps} steps of
32, {examples:,} pictures (rendered scenes, exact hints where pixels do not tell; for line-like
hints stickers of the train split too), {minutes:.0f} minutes, Muon, half of the prompts empty.
float16.

{figures}## Licences

The weights are under the MIT licence of this project. They continue those of
[playroom](../playroom/README.md), whose card names the sticker art (MIT, Apache-2.0, CC-BY-4.0)
and its makers; the same art was used here.
"""
SHARED = """The copy that the other playroom controls share: one ControlNet for the playroom base,
trained on hints of the paper's nine conditions at once. It follows all of them by itself; each
condition's own hint encoder and connections
stand in the folders beside this one."""
CONTROL_CARD = """\
A ControlNet for the playroom base that follows {name} hints: {meaning}. This folder holds
its own part, hint encoder and connections; the rest is
[playroom-shared](../playroom-shared/README.md)'s.
`zeroconv convert playroom-{name} OUT` writes one that stands alone and that diffusers reads."""


def card(name: str, trained: dict[str, Any]) -> str:
    shared = name == "shared"
    what = SHARED if shared else CONTROL_CARD.format(name=name, meaning=CONDITIONS[name].meaning)
    recipe = f"recipes/playroom-{'shared' if shared else 'own'}.yaml"
    numbers = {key: trained[key] for key in ("steps", "examples", "minutes")}
    return CARD.format(name=name, what=what, recipe=recipe, figures=figures(name), **numbers)


def figures(name: str) -> str:
    """The section of a card that says how well the hint is followed."""
    path = RESULTS / "family" / f"{name}.json"
    if not path.is_file():
        return ""
    lines = [
        "| 95% intervals | own hint | another's hint | no control | ceiling (VAE) |",
        "|---|---|---|---|---|",
    ]
    for report in read_json(path):
        for metric, values in report["metrics"].items():
            cells = " | ".join(span(values.get(column)) for column in COLUMNS[:4])
            lines.append(f"| {METRICS[metric].meaning}, {PROMPTED[report['prompts']]} | {cells} |")
    return (
        "## Figures\n\n"
        + "\n".join(lines)
        + "\n\nMade by `python -m benchmarks.quality.family measure`.\n\n"
    )


def solo() -> None:
    """A canny control with a copy of its own, on as many pictures as the shared copy and its own
    part saw edges of.
    """
    from zeroconv.training import train_command

    data = {name: json.dumps(specs) for name, specs in data_of("canny").items()}
    settings = [
        f"out={RUNS}/solo-canny",
        "training.steps=240",
        *(f"data.{name}={specs}" for name, specs in data.items()),
    ]
    train_command(ROOT / "recipes" / "playroom-canny.yaml", settings)
    alone = evaluate(f"{RUNS}/solo-canny/control", count_none=0, guidance="cond", varied=0)[
        "metrics"
    ]
    shared = read_json(RESULTS / "family" / "canny.json")[0]["metrics"]
    rows = [
        [METRICS[metric].meaning, span(alone[metric]["own"]), span(shared[metric]["own"])]
        for metric in ("f1_1px", "f1")
    ]
    rows.append(
        [
            "pictures with edges seen in training",
            240 * 32,
            round(1100 * 32 * 1536 / 13056) + 120 * 32,
        ]
    )
    columns = [
        "canny, 200 test scenes, own caption",
        "a copy of its own, 13 MB",
        "shared copy, 0.8 MB of its own",
    ]
    note = "Guidance `cond`, cfg 4, 12 steps."
    write_result("sharing", columns, rows, "python -m benchmarks.quality.family solo", note)


PROMPTED = {"own": "own caption", "empty": "no prompt"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["train", "pack", "measure", "table", "solo"])
    parser.add_argument("conditions", nargs="*")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--none", type=int, default=100, help="pictures made without control")
    parser.add_argument(
        "--few", type=int, default=100, help="pictures of every other prompt setting than own"
    )
    parser.add_argument("--prompts", nargs="*", default=["own", "empty"])
    parser.add_argument("--guidance", default="cond")
    parser.add_argument("--data", default="playroom:test")
    arguments = parser.parse_args()
    if arguments.what == "train":
        train(arguments.conditions or ["shared", *PAPER])
    elif arguments.what == "pack":
        pack()
    elif arguments.what == "measure":
        measure(arguments.conditions or list(PAPER), arguments)
    elif arguments.what == "solo":
        solo()
    else:
        table()
        cards()


if __name__ == "__main__":
    main()
