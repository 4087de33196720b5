"""A run as one HTML file: how it ended, curves, events, pictures. It stands alone and can be sent to somebody."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zeroconv.files import atomic_write
from zeroconv.training.charts import Curve, chart, smooth

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
svg text{font-size:11px;fill:currentColor}svg{width:100%;height:auto}.grid{stroke:currentColor;opacity:.15}
img{max-width:100%;image-rendering:pixelated}td{padding:.1rem 1.2rem .1rem 0;vertical-align:top}h2{margin:1.6rem 0 0}
small{opacity:.75}pre{overflow-x:auto;font-size:12px}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}}
"""
_FEW = 60  # points of a training loss that are drawn as they are


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from the run's log, summary, recipe and sheets of pictures; returns its path."""
    lines, summary = _read_lines(folder / "log.jsonl"), _read(folder / "summary.json")
    recipe = _read(folder / "recipe.json").get("recipe", {})
    events = [line for line in lines if "event" in line]
    marks = [float(e["converged"]["step"]) for e in events if e["event"] == "converged"]
    sheets = sorted((folder / "samples").glob("*.png"))
    rounds = [path for path in sheets if path.stem.startswith("evaluation")]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{html.escape(folder.name)}</title>",
        f"<style>{_STYLE}</style><h1>{html.escape(folder.name)}</h1>",
        _facts(summary, recipe),
        "".join(f"<p>{html.escape(_told(event))}</p>" for event in _notable(events)),
        *_fidelity([(line["step"], line["evaluation"]) for line in lines if "evaluation" in line], marks),
        *_validation([(line["step"], line["validation"]) for line in lines if "validation" in line], marks),
        *_training([line for line in lines if "loss" in line and "event" not in line], marks),
        *(_sheet(path, "hint, made, read back, real") for path in _few(rounds, 2)),
        *(
            _sheet(p, "hint, target, made with the caption, made with no prompt")
            for p in _few(sorted({*sheets} - {*rounds}))
        ),
        _recipe(recipe),
    ]
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text("\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return folder / "report.html"


# ---------------------------------------------------------------- curves


def _section(title: str, what: str, *charts: str) -> list[str]:
    return [f"<h2>{title}</h2><p><small>{what}</small></p>", *charts]


def _fidelity(rounds: list[tuple[int, dict[str, Any]]], marks: Sequence[float]) -> list[str]:
    """One chart a metric: own hints with their interval, another's, the ceiling."""
    if not rounds:
        return []
    charts = []
    for metric in rounds[-1][1]["metrics"]:
        found = [(step, line["metrics"][metric]) for step, line in rounds if metric in line["metrics"]]
        curves = [
            Curve(f"{metric}, own hint", _means(found, "own"), [(c["own"]["low"], c["own"]["high"]) for _, c in found]),
            Curve("another's hint", _means(found, "shuffled")),
            Curve("ceiling", _means(found, "ceiling")),
        ]
        charts.append(chart(curves, marks, "followed", zero=True))
    return _section(
        "Are the hints followed?",
        f"Pictures made for {rounds[-1][1]['n']} held-out hints, the hint read back from them and compared: with their "
        "own hint (shaded: 95% interval) and with another picture's. The ceiling is what the real pictures reach "
        "through the autoencoder.",
        *charts,
    )


def _means(found: list[tuple[int, dict[str, Any]]], column: str) -> list[tuple[float, float]]:
    return [(step, columns[column]["mean"]) for step, columns in found]


def _validation(checks: list[tuple[int, dict[str, float]]], marks: Sequence[float]) -> list[str]:
    if not checks:
        return []

    def of(name: str) -> list[tuple[float, float]]:
        return [(step, found[name]) for step, found in checks if name in found]

    spread = [
        (v["gain"] - 1.96 * v["gain_error"], v["gain"] + 1.96 * v["gain_error"]) for _, v in checks if "gain" in v
    ]
    gain = chart([Curve("hint gain", of("gain"), spread)], marks, "followed", zero=True)
    curves = [
        Curve(name, of(key)) for name, key in (("right hint", "true"), ("another's", "shuffled"), ("none", "none"))
    ]
    return [
        *_section(
            "Hint gain",
            "Loss with another picture's hint minus loss with the right one (shaded: 95% interval): zero until the "
            "hint is followed. A dashed line marks where that began.",
            gain,
        ),
        *_section("Validation loss", "Of held-out pictures, always with the same noise.", chart(curves, marks)),
    ]


def _training(lines: list[dict[str, Any]], marks: Sequence[float]) -> list[str]:
    losses = [(line["step"], line["loss"]) for line in lines]
    curves = [Curve("loss", losses)]
    if len(losses) > _FEW:
        curves = [Curve("loss", losses, faint=True), Curve("loss, running mean", smooth(losses))]
    rates = [(line["step"], line["lr"]) for line in lines if "lr" in line]
    what = "Timestep and noise decide most of it; that it does not fall need not mean that nothing is learned."
    drawn = _section("Training loss", what, chart(curves, marks, "followed"))
    if len({rate for _, rate in rates}) > 1:
        drawn += _section("Learning rate", "", chart([Curve("learning rate", rates)], zero=True))
    return drawn


# ---------------------------------------------------------------- words and pictures


def _facts(summary: dict[str, Any], recipe: dict[str, Any]) -> str:
    names = ("status", "steps", "samples", "minutes", "samples_per_second", "examples", "broken", "peak_memory_mb")
    facts = {name.replace("_", " "): summary[name] for name in names if name in summary}
    if recipe:
        data = recipe.get("data", {})
        facts = {"base": recipe.get("base"), "condition": data.get("condition"), "data": data.get("train"), **facts}
    if last := summary.get("validation"):
        error = f" ± {last['gain_error']:.4f}" if "gain_error" in last else ""
        facts["hint gain"] = f"{last['gain']:+.4f}{error}" if "gain" in last else None
    if last := summary.get("evaluation"):
        metric, found = next(iter(last["metrics"].items()))
        own = found["own"]
        facts[f"{metric} of {last['n']} pictures"] = (
            f"{own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}]; another's hint {found['shuffled']['mean']:.3f}, "
            f"ceiling {found['ceiling']['mean']:.3f}"
        )
    shown = {name: ", ".join(map(str, v)) if isinstance(v, list) else v for name, v in facts.items() if v is not None}
    rows = "".join(f"<tr><td>{html.escape(n)}</td><td>{html.escape(str(v))}</td></tr>" for n, v in shown.items())
    return f"<table>{rows}</table>"


def _recipe(recipe: dict[str, Any]) -> str:
    if not recipe:
        return ""
    text = html.escape(json.dumps(recipe, indent=2, ensure_ascii=False))
    return f"<details><summary>The recipe, with its defaults</summary><pre>{text}</pre></details>"


def _notable(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] != "skipped"]


def _told(event: dict[str, Any]) -> str:
    if event["event"] == "converged":
        found = event["converged"]
        return (
            f"The hints are followed since step {found['step']}, seen at step {found['seen']} with a gain of "
            f"{found['gain']:.4f} and a confidence of {found['confidence']:.4f}."
        )
    return f"Step {event['step']}: {event['event']}."


def _sheet(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    kind, _, step = path.stem.partition("-")
    words = {"evaluation": "Pictures that were scored", "step": "Pictures"}.get(kind, kind)
    title = f"{words}, step {int(step)}" if step.isdecimal() else path.stem
    return (
        f"<h2>{html.escape(title)}</h2><p><small>{caption}</small></p>"
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'
    )


def _few(paths: list[Path], most: int = 4) -> list[Path]:
    """First, last, and evenly spread between."""
    if len(paths) <= most:
        return paths
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    from zeroconv.training.runlog import RunLog

    return RunLog(path, active=False).read()
