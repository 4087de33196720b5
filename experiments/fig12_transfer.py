"""Figure 12: controls on community models. Does a control that was trained on one base serve a base
made from it?

The paper applies its controls to community models of Stable Diffusion unchanged. The released code
offers a second way, to add the difference of the two bases to the control's copy. Here both serve
two LoRA bases of the playroom, a pencil and a night, and are scored against the hints of the plain
scenes, whose geometry the styles keep.

`python -m experiments.fig12_transfer [--count 80]`; a case that was measured is not measured again.
With `--anew 240` a canny control is also trained on each of them for so many steps, on pictures in
its style: fig12-anew.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.common import RUNS, Claim, options, shown_options, span, write_result
from experiments.memory import CFG, GUIDANCE, STEPS, weights_mark
from experiments.sheets import draw_sheet
from experiments.training import prepare, trained
from tools.reports import read_json, write_json
from zeroconv.backbones import UNetBackbone, load_backbone
from zeroconv.conditions.scores import METRICS
from zeroconv.control import ControlNet
from zeroconv.control.transfer import METHODS, transfer
from zeroconv.evaluation import evaluate
from zeroconv.evaluation.fidelity import Shown
from zeroconv.evaluation.metrics import rgb_to_lab
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.generation import Control, generate
from zeroconv.layers.allocator import keep_pages
from zeroconv.training.recipes.recipe import Recipe

# and the figure each is judged by
CONDITIONS = {"canny": "f1_1px", "depth": "delta1", "pose": "pck"}
STYLES = {"playroom": "", "playroom-pencil": "pencil", "playroom-night": "night"}
COLUMNS = ("own", "shuffled", "none", "ceiling", "real")
SHOWN = 2  # scenes a condition in the sheet
Measured = dict[str, dict[str, Any]]  # "condition base method" → what was found


ANEW = "trained anew"


def cases(anew: bool = False) -> Iterator[tuple[str, str, str]]:
    """(condition, base, method): on the control's own base there is nothing to transfer. `anew`:
    edges alone, with controls that were trained on the base.
    """
    if anew:
        yield from (
            ("canny", base, method)
            for base in STYLES
            if STYLES[base]
            for method in (*METHODS, ANEW)
        )
        return
    for condition in CONDITIONS:
        for base in STYLES:
            for method in METHODS if STYLES[base] else METHODS[:1]:
                yield condition, base, method


def data_of(condition: str, base: str, count: int) -> str:
    """Test scenes drawn in the base's own style: what is "real" there is a picture of that
    style.
    """
    options = ["only=person"] if condition == "pose" else []
    options += [f"style={STYLES[base]}"] if STYLES[base] else []
    return f"playroom:test:{count}" + ("?" + "&".join(options) if options else "")


class Models:
    """Bases and transferred controls, each made once."""

    def __init__(self, steps: int = 0) -> None:
        self.bases: dict[str, UNetBackbone] = {}
        self.steps = steps  # of a control that is trained anew
        self.common: dict[Any, Any] = {}  # what cases of one base share

    def base(self, name: str) -> UNetBackbone:
        if name not in self.bases:
            self.bases[name] = load_backbone(name)
        return self.bases[name]

    def control(self, condition: str, base: str, method: str) -> ControlNet:
        if method == ANEW:
            return ControlNet.load(trained(recipe_on(base, self.steps)), backbone=self.base(base))
        control = ControlNet.load(f"playroom-{condition}")
        return transfer(control, self.base("playroom"), self.base(base), method)


def recipe_on(base: str, steps: int) -> Recipe:
    """The recipe of every control that figures train, on a base and pictures in its style."""
    data = {
        part: f'["playroom:{words}?style={STYLES[base]}"]' for part, words in TRAINED_ON.items()
    }
    settings = {f"data__{part}": value for part, value in data.items()}
    return prepare(
        "fig12", f"canny-{base}", 0, steps, base=base, training__schedule="cosine",
        training__validate_every=max(1, steps // 6), training__checkpoint_every=40, **settings,
    )  # fmt: skip


TRAINED_ON = {"train": "train:3072", "validation": "val:64"}


def tones(images: list[Image.Image]) -> dict[str, float]:
    """Mean CIELAB lightness and chroma of pictures: whether a picture is in the style at all."""
    lab = np.stack([rgb_to_lab(np.asarray(image.convert("RGB"))) for image in images])
    return {
        "lightness": float(lab[..., 0].mean()),
        "chroma": float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
    }


def measure(
    models: Models, condition: str, base: str, method: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The report of one case, cut down to what the table says."""
    shown: list[Shown] = []
    report = evaluate(
        models.control(condition, base, method),
        base=models.base(base),
        data=data_of(condition, base, arguments.count),
        count=arguments.count,
        # without control all methods are the same
        count_none=arguments.none if method == METHODS[0] else 0,
        guidance=GUIDANCE,
        cfg=CFG,
        steps=STEPS,
        batch_size=arguments.batch_size,
        varied=0,
        pictures=shown,
        common=models.common,
    )
    metric = CONDITIONS[condition]
    return {
        "metric": metric,
        "values": report["metrics"][metric],
        "lift": report["lift"][metric],
        "all": report["metrics"],
        "tones": {
            "made": tones(shown[0].made),
            "style": tones([pair.image for pair in shown[0].pairs]),
        },
        "n": report["n"],
    }


# ---------------------------------------------------------------- what is written


def table(measured: Measured, anew: bool = False) -> list[list[str]]:
    rows = []
    for condition, base, method in cases(anew):
        result = measured.get(f"{condition} {base} {method}")
        if result is None:
            continue
        values = dict(result["values"])
        if "none" not in values:  # the base without control is the same for both methods
            values["none"] = measured.get(f"{condition} {base} {METHODS[0]}", result)["values"].get(
                "none"
            )
        sign = "" if METRICS[result["metric"]].better == "higher" else " ↓"
        how = method if STYLES[base] else "its own base"
        share = (
            values["own"]["mean"]
            / measured[f"{condition} playroom {METHODS[0]}"]["values"]["own"]["mean"]
        )
        tone = [
            f"{result['tones']['made'][name]:.0f} / {result['tones']['style'][name]:.0f}"
            for name in ("lightness", "chroma")
        ]
        cells = [span(values.get(column)) for column in COLUMNS]
        rows.append(
            [f"{condition}, {result['metric']}{sign}", base, how, *cells, f"{share:.0%}", *tone]
        )
    return rows


def claims(measured: Measured) -> list[Claim]:
    """Judged by the primary figure: edges, which need no trained reader."""
    texts, compared = [], []
    serves = gains = True
    for base in STYLES:
        if not STYLES[base]:
            continue
        plain, moved = (measured[f"canny {base} {method}"]["values"] for method in METHODS)
        serves &= plain["own"]["low"] > max(plain["shuffled"]["high"], plain["none"]["high"])
        gains &= moved["own"]["low"] > plain["own"]["high"]
        texts.append(
            f"{base} {plain['own']['mean']:.3f}, without control {plain['none']['mean']:.3f}"
        )
        compared.append(f"{base} {span(moved['own'])} against {span(plain['own'])}")
    unchanged = measured["canny playroom unchanged"]["values"]["own"]["mean"]
    return [
        Claim(
            "controls serve community models of the same architecture without being trained again",
            f"canny F1 unchanged: {'; '.join(texts)}; on its own base {unchanged:.3f}",
            serves,
        ),
        Claim(
            "(of the released code, not of the text) adding the difference of the bases makes it "
            "better",
            f"canny F1 by difference: {'; '.join(compared)} unchanged",
            gains,
        ),
    ]


def claims_anew(measured: Measured) -> list[Claim]:
    """The paper trains nothing anew for a community model; that this costs nothing is implied."""
    texts, level = [], True
    for base in (base for base in STYLES if STYLES[base]):
        moved, anew = (measured[f"canny {base} {method}"] for method in (METHODS[0], ANEW))
        worth = anew["lift"]["over shuffled"]["mean"]
        lead = anew["values"]["own"]["mean"] - moved["values"]["own"]["mean"]
        level &= lead <= ENOUGH * worth
        texts.append(
            f"{base} {span(moved['values']['own'])} unchanged, {span(anew['values']['own'])} "
            "trained there"
        )
    return [
        Claim(
            "a control need not be trained again for a community model (implied: the paper trains "
            "none)",
            f"canny F1: {'; '.join(texts)}; {ENOUGH:.0%} of what the hint is worth counts",
            level,
        )
    ]


ENOUGH = 0.1


def note(arguments: argparse.Namespace) -> str:
    return (
        f"n = {arguments.count} test scenes (no control: {arguments.none}), own captions, {STEPS} "
        f"UniPC steps, guidance `{GUIDANCE}`, cfg {CFG:g}; 95% intervals; scored against the hint "
        "of the plain scene. Ceiling: pictures drawn in the base's own style, through the VAE; "
        "real: those pictures. Both are low where a style hides edges or adds its own (hatching, "
        "a window); a control may beat them by keeping to the hint and leaving such things out. "
        "Edges are the primary figure: depth and pose are read by a network that has seen the "
        "plain style only, and `real` says how far it can be trusted in another. Lightness and "
        "chroma: CIELAB means of the pictures made / of pictures drawn in the style, which say "
        "whether a picture is in the style."
    )


def draw(models: Models, arguments: argparse.Namespace, figure: str) -> None:
    """The sheet: a row a scene, the first ones of the test split; a column a base and method."""
    wanted = list(cases(bool(arguments.anew)))
    columns = list(dict.fromkeys((base, method) for _, base, method in wanted))
    rows: list[tuple[str, list[Image.Image]]] = []
    for condition in dict.fromkeys(condition for condition, _, _ in wanted):
        pairs = load_pairs("playroom:test", condition, SHOWN, models.base("playroom").default_size)
        hints, prompts = [pair.hint for pair in pairs], [pair.caption for pair in pairs]
        made = [hints]
        for base, method in columns:
            controls = [Control(models.control(condition, base, method), hints)]
            seeds = list(range(SHOWN))
            made.append(
                generate(
                    models.base(base),
                    prompts,
                    controls,
                    guidance=GUIDANCE,
                    cfg=CFG,
                    steps=STEPS,
                    seed=seeds,
                )
            )
        rows += [("", list(row)) for row in zip(*made, strict=True)]
    heads = [
        "hint",
        *(base if not STYLES[base] else f"{STYLES[base]}, {method}" for base, method in columns),
    ]
    draw_sheet(rows, arguments.pictures / f"{figure}.jpg", heads, label_width=4)


def measure_all(
    models: Models, path: Path, arguments: argparse.Namespace, known: Measured
) -> Measured:
    """Every case; those in `path`, and those that are `known`, are there already, the others are
    added to `path` one by one.
    """
    measured = {**known, **kept(path, arguments)}
    # what shares are reckoned of
    unchanged = [("canny", "playroom", METHODS[0])] if arguments.anew else []
    for condition, base, method in [*unchanged, *cases(bool(arguments.anew))]:
        name = f"{condition} {base} {method}"
        if name not in measured:
            measured[name] = measure(models, condition, base, method, arguments)
            write_json(path, measured)
        values = measured[name]["values"]
        print(
            name,
            {column: round(values[column]["mean"], 3) for column in COLUMNS if column in values},
            flush=True,
        )
    return measured


def kept(path: Path, arguments: argparse.Namespace) -> Measured:
    return read_json(path) if path.is_file() and not arguments.fresh else {}


def main() -> None:
    arguments = options(
        __doc__, 80, none=(40, "of them without control too"), anew=(0, "steps of a control's own")
    )
    keep_pages()
    models, anew = Models(arguments.anew), bool(arguments.anew)
    path = RUNS / f"fig12-{arguments.count}-{arguments.none}-{weights_mark()}.json"
    known = kept(path, arguments)
    if anew:
        path = path.with_name(f"fig12-anew-{arguments.anew}-{path.name.removeprefix('fig12-')}")
    measured = measure_all(models, path, arguments, known)
    figure = "fig12-anew" if anew else "fig12"
    draw(models, arguments, figure)
    columns = [
        "condition",
        "base",
        "transfer",
        "own hint",
        "another's hint",
        "no control",
        "ceiling (VAE)",
        "real",
    ]
    columns += ["of its own base", "lightness, made / style", "chroma, made / style"]
    caption = (
        f"{figure}.jpg: the same hints, captions and noise on three bases, and the two ways to "
        "transfer a control"
    )
    text = note(arguments)
    if anew:
        caption = (
            f"{figure}.jpg: the same hints, captions and noise; controls that were moved, and "
            "trained on the base"
        )
        text += (
            f" Trained anew: {arguments.anew} steps of 32 on 3,072 scenes in the base's style "
            "(Muon 1e-3, cosine)."
        )
    write_result(
        figure,
        columns,
        table(measured, anew),
        claims_anew(measured) if anew else claims(measured),
        note=text,
        pictures=[caption],
        details=measured,
        folder=arguments.out,
        command=" ".join(["zeroconv reproduce fig12", *shown_options()]),
    )


if __name__ == "__main__":
    main()
