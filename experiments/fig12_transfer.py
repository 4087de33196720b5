"""Figure 12: controls on community models. Does a control that was trained on one base serve a base made from it?

The paper applies its controls to community models of Stable Diffusion unchanged. The released code offers a second way,
to add the difference of the two bases to the control's copy. Here both serve two LoRA bases of the playroom, a pencil
and a night, and are scored against the hints of the plain scenes, whose geometry the styles keep.

`python -m experiments.fig12_transfer [--count 100]`; what is in experiments/results/fig12.json already is not measured
again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from zeroconv.backbones import UNetBackbone, load_backbone
from zeroconv.conditions.scores import METRICS
from zeroconv.control import ControlNet
from zeroconv.control.transfer import METHODS, transfer
from zeroconv.evaluation import evaluate
from zeroconv.evaluation.fidelity import Shown
from zeroconv.evaluation.metrics import rgb_to_lab
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.files import atomic_write
from zeroconv.generation import Control, generate

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "experiments" / "results" / "fig12.json"
PICTURE = ROOT / "docs" / "pictures" / "fig12-transfer.png"
MAIN = {"canny": "f1_1px", "depth": "delta1", "pose": "pck"}  # the figure a condition is judged by
STYLES = {"playroom": "", "playroom-pencil": "pencil", "playroom-night": "night"}
COLUMNS = ("own", "shuffled", "none", "ceiling", "real")
SHOWN = 2  # scenes a condition in the sheet
SIZE = 128


def cases() -> Iterator[tuple[str, str, str]]:
    """(condition, base, method): on the control's own base there is nothing to transfer."""
    for condition in MAIN:
        for base in STYLES:
            for method in METHODS if STYLES[base] else METHODS[:1]:
                yield condition, base, method


def data_of(condition: str, base: str, count: int) -> str:
    """Test scenes drawn in the base's own style: what is "real" there is a picture of that style."""
    options = ["only=person"] if condition == "pose" else []
    options += [f"style={STYLES[base]}"] if STYLES[base] else []
    return f"playroom:test:{count}" + ("?" + "&".join(options) if options else "")


class Models:
    """Bases and transferred controls, each made once."""

    def __init__(self) -> None:
        self.bases: dict[str, UNetBackbone] = {}

    def base(self, name: str) -> UNetBackbone:
        if name not in self.bases:
            self.bases[name] = load_backbone(name)
        return self.bases[name]

    def control(self, condition: str, base: str, method: str) -> ControlNet:
        control = ControlNet.load(f"playroom-{condition}")
        return transfer(control, self.base("playroom"), self.base(base), method)


def tones(images: list[Image.Image]) -> dict[str, float]:
    """Mean CIELAB lightness and chroma of pictures: whether a picture is in the style at all."""
    lab = np.stack([rgb_to_lab(np.asarray(image.convert("RGB"))) for image in images])
    return {"lightness": float(lab[..., 0].mean()), "chroma": float(np.hypot(lab[..., 1], lab[..., 2]).mean())}


def measure(models: Models, condition: str, base: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """The report of one case, cut down to what the table says."""
    shown: list[Shown] = []
    report = evaluate(
        models.control(condition, base, method),
        base=models.base(base),
        data=data_of(condition, base, options.count),
        count=options.count,
        count_none=options.none if method == METHODS[0] else 0,
        guidance=options.guidance,
        cfg=options.cfg,
        steps=options.steps,
        varied=0,
        pictures=shown,
    )
    metric = MAIN[condition]
    return {
        "metric": metric,
        "values": report["metrics"][metric],
        "lift": report["lift"][metric],
        "all": report["metrics"],
        "tones": {"made": tones(shown[0].made), "style": tones([pair.image for pair in shown[0].pairs])},
        "n": report["n"],
    }


# ---------------------------------------------------------------- what is written


def span(value: dict[str, float] | None) -> str:
    return "–" if value is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def table(measured: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = []
    for condition, base, method in cases():
        found = measured.get(f"{condition} {base} {method}")
        if found is None:
            continue
        values = dict(found["values"])
        if "none" not in values:  # the base without control is the same for both methods
            values["none"] = measured.get(f"{condition} {base} {METHODS[0]}", found)["values"].get("none")
        sign = "" if METRICS[found["metric"]].better == "higher" else " ↓"
        how = method if STYLES[base] else "its own base"
        share = values["own"]["mean"] / measured[f"{condition} playroom {METHODS[0]}"]["values"]["own"]["mean"]
        tone = [
            f"{found['tones']['made'][name]:.0f} / {found['tones']['style'][name]:.0f}"
            for name in ("lightness", "chroma")
        ]
        cells = [span(values.get(column)) for column in COLUMNS]
        rows.append([f"{condition}, {found['metric']}{sign}", base, how, *cells, f"{share:.0%}", *tone])
    return rows


def finding(measured: dict[str, dict[str, Any]]) -> str:
    """What the paper found and what was found here, by the primary figure: edges, which need no trained reader."""
    own = measured["canny playroom unchanged"]["values"]
    told = []
    agrees = True
    for base in STYLES:
        if not STYLES[base]:
            continue
        by = {method: measured[f"canny {base} {method}"]["values"] for method in METHODS}
        plain, moved = by["unchanged"], by["difference"]
        agrees &= plain["own"]["low"] > max(plain["shuffled"]["high"], plain["none"]["high"])
        told.append(
            f"on {base} unchanged {plain['own']['mean']:.3f} and by difference {moved['own']['mean']:.3f} "
            f"(no control {plain['none']['mean']:.3f}, ceiling {plain['ceiling']['mean']:.3f})"
        )
    verdict = "Ours agrees" if agrees else "Ours does not agree"
    return (
        "The paper: controls serve community models of the same architecture unchanged, without training again "
        f"(figure 12). {verdict}: edges within a pixel, F1 {own['own']['mean']:.3f} on the control's own base "
        f"(ceiling {own['ceiling']['mean']:.3f}), " + "; ".join(told) + "."
    )


def note(options: argparse.Namespace) -> str:
    return (
        f"n = {options.count} test scenes (no control: {options.none}), own captions, {options.steps} UniPC steps, "
        f"guidance `{options.guidance}`, cfg {options.cfg:g}; 95% intervals; scored against the hint of the plain "
        "scene. Ceiling: pictures drawn in the base's own style, through the VAE; real: those pictures. Both are low "
        "where a style hides edges or adds its own (hatching, a window); a control may beat them by keeping to the "
        "hint and leaving such things out. Edges are the primary figure: depth and pose are read by a network that has "
        "seen the plain style only, and `real` says how far it can be trusted in another. Lightness and chroma: CIELAB "
        "means of the pictures made / of pictures drawn in the style, which say whether a picture is in the style."
    )


def write(measured: dict[str, dict[str, Any]], options: argparse.Namespace, settings: dict[str, Any]) -> None:
    columns = ["condition", "base", "transfer", "own hint", "another's hint", "no control", "ceiling (VAE)", "real"]
    columns += ["of its own base", "lightness, made / style", "chroma, made / style"]
    done = all(f"{c} {b} {m}" in measured for c, b, m in cases())
    result = {
        "columns": columns,
        "rows": table(measured),
        "command": "python -m experiments.fig12_transfer",
        "note": note(options),
        "finding": finding(measured) if done else None,
        "settings": settings,
        "measured": measured,
    }
    with atomic_write(RESULT) as temporary:
        temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(models: Models, options: argparse.Namespace) -> None:
    """The sheet: a row a scene, the first ones of the test split; a column a base and method."""
    columns = [(base, method) for base in STYLES for method in (METHODS if STYLES[base] else METHODS[:1])]
    rows: list[list[Image.Image]] = []
    for condition in MAIN:
        pairs = load_pairs("playroom:test", condition, SHOWN, SIZE)
        made = [[pair.hint for pair in pairs]]
        for base, method in columns:
            controls = [Control(models.control(condition, base, method), [pair.hint for pair in pairs])]
            made.append(
                generate(
                    models.base(base),
                    [pair.caption for pair in pairs],
                    controls,
                    guidance=options.guidance,
                    cfg=options.cfg,
                    steps=options.steps,
                    seed=list(range(SHOWN)),
                )
            )
        rows += [list(row) for row in zip(*made, strict=True)]
    heads = ["hint", *(base if not STYLES[base] else f"{STYLES[base]}, {method}" for base, method in columns)]
    width, height, head = SIZE + 4, SIZE + 4, 18
    sheet = Image.new("RGB", (len(heads) * width - 4, head + len(rows) * height - 4), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for x, text in enumerate(heads):
        pen.text((x * width + 2, 1), text, "black", font)
        for y, row in enumerate(rows):
            sheet.paste(row[x].convert("RGB"), (x * width, head + y * height))
    with atomic_write(PICTURE) as temporary:
        sheet.save(temporary, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="test scenes a case")
    parser.add_argument("--none", type=int, default=50, help="of them without control too")
    parser.add_argument("--guidance", default="cond", help="where control enters guidance")
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = {name: getattr(options, name) for name in ("count", "none", "guidance", "cfg", "steps")}
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    measured = before["measured"] if before.get("settings") == settings else {}
    models = Models()
    for condition, base, method in cases():
        name = f"{condition} {base} {method}"
        if name not in measured:
            measured[name] = measure(models, condition, base, method, options)
            write(measured, options, settings)
        own = measured[name]["values"]
        print(name, {column: round(own[column]["mean"], 3) for column in COLUMNS if column in own}, flush=True)
    write(measured, options, settings)
    draw(models, options)
    print(finding(measured), flush=True)


if __name__ == "__main__":
    main()
