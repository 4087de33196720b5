"""A run as one HTML file: how it ended, curves, events, pictures. It stands alone and can be sent
to somebody.
"""

from __future__ import annotations

import base64
import html
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from zeroconv.files import atomic_write
from zeroconv.jsonfile import to_json
from zeroconv.training.folder import read_object
from zeroconv.training.reporting.charts import Curve, Point, chart, smooth
from zeroconv.training.reporting.log import RunLog

T = TypeVar("T")

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}
body{color:#222;background:#fff}
svg text{font-size:11px;fill:currentColor}svg{width:100%;height:auto}
.grid{stroke:currentColor;opacity:.15}
img{max-width:100%;image-rendering:pixelated}
td{padding:.1rem 1.2rem .1rem 0;vertical-align:top}h2{margin:1.6rem 0 0}
small{opacity:.75}pre{overflow-x:auto;font-size:12px}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}}
"""
_HEAD = """\
<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title>
<style>{style}</style><h1>{title}</h1>"""
_LOOKS = "hint, target, made with the caption, made with no prompt"
_MISSING: str | list[str] = "<p>Something is missing here: what the run wrote of it is damaged.</p>"
_LARGEST = 1 << 26  # bytes of a sheet
_FEW = 60  # points of a training loss that are drawn as they are


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from the run's log, summary, recipe and sheets of pictures.

    What of them is damaged is left out, and the page says so. Returns the page's path.
    """
    log = RunLog(folder / "log.jsonl", active=False)
    lines, summary = log.read(), read_object(folder / "summary.json")
    recipe = read_object(folder / "recipe.json").get("recipe", {})
    events = [line for line in lines if "event" in line]
    none: list[float] = []
    marks = _shown(
        "mark", lambda: [float(e["converged"]["step"]) for e in _converged(events)], none
    )
    sheets = sorted(path for path in (folder / "samples").glob("*.png") if _is_sheet(path))
    rounds = [path for path in sheets if path.stem.startswith("evaluation")]
    prompted = [path for path in sheets if path.stem.startswith("validation")]
    others = sorted({*sheets} - {*rounds} - {*prompted})
    parts: list[Callable[[], str | list[str]]] = [
        lambda: _facts(summary, recipe),
        lambda: _unread(log.count_bad()),
        lambda: [f"<p>{html.escape(_sentence(event))}</p>" for event in _notable(events)],
        lambda: _fidelity(_of(lines, "evaluation"), marks),
        lambda: _validation(_of(lines, "validation"), marks),
        lambda: _training(
            [line for line in lines if "loss" in line and "event" not in line],
            _of(lines, "validation"),
            marks,
        ),
        lambda: [_sheet(path, "hint, made, read back, real") for path in _few(rounds, 2)],
        lambda: [_sheet(path, _prompts(lines, path)) for path in _few(prompted)],
        lambda: [_sheet(path, _LOOKS) for path in _few(others)],
        lambda: _recipe(recipe),
    ]
    drawn = [_shown("part", part, _MISSING) for part in parts]
    page = [_HEAD.format(title=html.escape(folder.name), style=_STYLE)]
    page += [line for part in drawn for line in ([part] if isinstance(part, str) else part)]
    text = "\n".join(line for line in page if line) + "\n"

    with atomic_write(folder / "report.html") as temporary:
        # a file's name may hold bytes that are no UTF-8
        temporary.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    return folder / "report.html"


def _shown(what: str, draw: Callable[[], T], otherwise: T) -> T:
    """What `draw` gives, or `otherwise`: whatever stands in the files, the page is written.

    The files lie in a folder where anybody may have edited them, in ways that nobody can list.
    """
    try:
        return draw()
    except Exception as error:
        warnings.warn(f"a {what} of the report cannot be drawn ({error!r}).", stacklevel=2)
        return otherwise


def _of(lines: list[dict[str, Any]], name: str) -> list[tuple[int, dict[str, Any]]]:
    """(step, what was measured) of the lines that hold it."""
    return [(line["step"], line[name]) for line in lines if line.get(name) is not None]


def _converged(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e["event"] == "converged" and e.get("converged")]


def _unread(count: int) -> str:
    return f"<p>{count} lines of log.jsonl cannot be read and are left out.</p>" if count else ""


def _is_sheet(path: Path) -> bool:
    """Whether a picture may stand in the page: a file, no pipe, and not too large to be sent."""
    return path.is_file() and path.stat().st_size <= _LARGEST


# ---------------------------------------------------------------- curves


def _section(title: str, what: str, *charts: str) -> list[str]:
    return [f"<h2>{title}</h2><p><small>{what}</small></p>", *charts]


def _fidelity(rounds: list[tuple[int, dict[str, Any]]], marks: Sequence[float]) -> list[str]:
    """One chart a metric: own hints with their interval, another's, the ceiling."""
    if not rounds:
        return []
    charts = []
    for metric in rounds[-1][1]["metrics"]:
        measured = [
            (step, line["metrics"][metric]) for step, line in rounds if metric in line["metrics"]
        ]
        scores = [columns["own"] for _, columns in measured if "own" in columns]
        band = [(interval.get("low"), interval.get("high")) for interval in scores]
        curves = [
            Curve(f"{metric}, own hint", _means(measured, "own"), band),
            Curve("another's hint", _means(measured, "shuffled")),
            Curve("ceiling", _means(measured, "ceiling")),
        ]
        charts.append(chart(curves, marks, "followed", zero=True))
    return _section(
        "Are the hints followed?",
        f"Pictures made for {rounds[-1][1]['n']} held-out hints, the hint read back from them and "
        "compared: with their own hint (shaded: 95% interval) and with another picture's. The "
        "ceiling is what the real pictures reach through the autoencoder.",
        *charts,
    )


def _means(measured: list[tuple[int, dict[str, Any]]], column: str) -> list[Point]:
    return [(step, columns[column]["mean"]) for step, columns in measured if column in columns]


def _validation(checks: list[tuple[int, dict[str, float]]], marks: Sequence[float]) -> list[str]:
    if not checks:
        return []

    def of(name: str) -> list[Point]:
        return [(step, measured[name]) for step, measured in checks if name in measured]

    spread = [_interval(measured) for _, measured in checks if "gain" in measured]
    gain = chart([Curve("hint gain", of("gain"), spread)], marks, "followed", zero=True)
    curves = [
        Curve(name, of(key))
        for name, key in (("right hint", "true"), ("another's", "shuffled"), ("none", "none"))
    ]
    return [
        *_section(
            "Hint gain",
            "Loss with another picture's hint minus loss with the right one (shaded: 95% "
            "interval): zero until the hint is followed. A dashed line marks where that began.",
            gain,
        ),
        *_section(
            "Validation loss",
            "Of held-out pictures, always with the same noise.",
            chart(curves, marks),
        ),
    ]


def _interval(measured: dict[str, Any]) -> tuple[float | None, float | None]:
    """95% of a hint gain; not known where one picture was measured."""
    gain, error = measured["gain"], measured.get("gain_error")
    if gain is None or error is None:
        return None, None
    return gain - 1.96 * error, gain + 1.96 * error


def _reward(
    lines: list[dict[str, Any]],
    checks: list[tuple[int, dict[str, float]]],
    marks: Sequence[float],
) -> list[str]:
    """Of a run with training.reward."""
    trained = [(line["step"], line["reward"]) for line in lines if _is_number(line.get("reward"))]
    held_out = [(step, measured["reward"]) for step, measured in checks if "reward" in measured]
    if not trained and not held_out:
        return []
    return _section(
        "Reward",
        "Distance between the given hint and the one read back from one-step estimates at small "
        "timesteps, without its weight; it is not part of the training loss above.",
        chart([Curve("training", trained), Curve("held out", held_out)], marks, "followed"),
    )


def _training(
    lines: list[dict[str, Any]],
    checks: list[tuple[int, dict[str, float]]],
    marks: Sequence[float],
) -> list[str]:
    losses = [(line["step"], line["loss"]) for line in lines if _is_number(line["loss"])]
    curves = [Curve("loss", losses)]
    if len(losses) > _FEW:
        curves = [Curve("loss", losses, faint=True), Curve("loss, running mean", smooth(losses))]
    rates = [(line["step"], line["lr"]) for line in lines if _is_number(line.get("lr"))]
    what = (
        "Timestep and noise decide most of it; that it does not fall need not mean that nothing is "
        "learned."
    )
    drawn = _section("Training loss", what, chart(curves, marks, "followed"))
    drawn += _reward(lines, checks, marks)
    if len({rate for _, rate in rates}) > 1:
        drawn += _section("Learning rate", "", chart([Curve("learning rate", rates)], zero=True))
    return drawn


# ---------------------------------------------------------------- words and pictures


def _facts(summary: dict[str, Any], recipe: dict[str, Any]) -> str:
    names = (
        "status",
        "steps",
        "samples",
        "minutes",
        "samples_per_second",
        "examples",
        "broken",
        "peak_memory_mb",
    )
    facts = {name.replace("_", " "): summary[name] for name in names if name in summary}
    if recipe:
        data = recipe.get("data", {})
        facts = {
            "base": recipe.get("base"),
            "condition": data.get("condition"),
            "data": data.get("train"),
            **facts,
        }
    last = summary.get("validation")
    if isinstance(last, dict) and "gain" in last:
        error = f" ± {_number(last['gain_error'])}" if last.get("gain_error") is not None else ""
        facts["hint gain"] = f"{_number(last['gain'], '+.4f')}{error}"
    if last := summary.get("evaluation"):
        metric, measured = next(iter(last["metrics"].items()))
        mean, low, high = (_number(measured["own"][key], ".3f") for key in ("mean", "low", "high"))
        others, most = (_number(measured[key]["mean"], ".3f") for key in ("shuffled", "ceiling"))
        facts[f"{metric} of {last['n']} pictures"] = (
            f"{mean} [{low}, {high}]; another's hint {others}, ceiling {most}"
        )
    shown = {
        name: ", ".join(map(str, v)) if isinstance(v, list) else v
        for name, v in facts.items()
        if v is not None
    }
    rows = "".join(
        f"<tr><td>{html.escape(n)}</td><td>{html.escape(str(v))}</td></tr>"
        for n, v in shown.items()
    )
    return f"<table>{rows}</table>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _number(value: float | None, form: str = ".4f") -> str:
    return "no number" if value is None else f"{value:{form}}"


def _recipe(recipe: dict[str, Any]) -> str:
    if not recipe:
        return ""
    text = html.escape(to_json(recipe, indent=2))
    return f"<details><summary>The recipe, with its defaults</summary><pre>{text}</pre></details>"


def _notable(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] != "skipped"]


def _sentence(event: dict[str, Any]) -> str:
    if event["event"] == "converged" and event.get("converged"):
        measured = event["converged"]
        return (
            f"The hints are followed since step {measured['step']}, seen at step "
            f"{measured['seen']} with a gain of {_number(measured['gain'])} and a confidence of "
            f"{_number(measured['confidence'])}."
        )
    return f"Step {event['step']}: {event['event']}."


def _sheet(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    kind, _, step = path.stem.partition("-")
    words = {"evaluation": "Pictures that were scored", "step": "Pictures"}.get(kind, kind)
    words = "Pictures of training.validation" if kind == "validation" else words
    title = f"{words}, step {int(step)}" if step.isdecimal() else path.stem
    return (
        f"<h2>{html.escape(title)}</h2><p><small>{caption}</small></p>"
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'
    )


def _prompts(lines: Sequence[dict[str, Any]], sheet: Path) -> str:
    """The prompts of a sheet's rows, as the log holds them, in HTML."""
    for line in reversed(lines):
        if line.get("sheet") == sheet.name and isinstance(line.get("prompts"), list):
            rows = [html.escape(str(prompt)) for prompt in line["prompts"]]
            return "A row each: " + "; ".join(f"“{row}”" for row in rows)
    return "hint, made with the prompt"


def _few(paths: list[Path], most: int = 4) -> list[Path]:
    """First, last, and evenly spread between."""
    if len(paths) <= most:
        return paths
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]
