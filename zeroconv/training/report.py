"""A run as one HTML file: curves, events, pictures. It stands alone and can be sent to somebody."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zeroconv.files import atomic_write

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 200, 56, 24
_COLOURS = ("#3366cc", "#cc5533", "#339955")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
svg text{font-size:11px;fill:currentColor}svg{width:100%;height:auto}img{max-width:100%}td{padding:.1rem 1rem .1rem 0}
small{opacity:.7}@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}}
"""

Curve = tuple[str, list[tuple[float, float]]]  # its name, its (step, value)


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from the run's log, summary and sheets of pictures; returns its path."""
    lines = _read_lines(folder / "log.jsonl")
    summary = json.loads((folder / "summary.json").read_text()) if (folder / "summary.json").is_file() else {}
    checks = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    events = [line for line in lines if "event" in line]
    marks = [float(e["converged"]["step"]) for e in events if e["event"] == "converged"]
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line and "event" not in line]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(folder.name)}</title>',
        f"<style>{_STYLE}</style><h1>{html.escape(folder.name)}</h1>",
        _facts(summary),
        "".join(f"<p>{html.escape(_told(event))}</p>" for event in _notable(events)),
        "<h2>Hint gain</h2><p><small>Loss with another picture's hint minus loss with the right one: zero until the "
        "hint is followed. The dashed line is where it began.</small></p>",
        chart([("hint gain", [(s, v["gain"]) for s, v in checks])], marks),
        "<h2>Validation loss</h2>",
        chart(
            [(n, [(s, v[k]) for s, v in checks]) for n, k in (("true hint", "true"), ("another's", "shuffled"))], marks
        ),
        "<h2>Training loss</h2>",
        chart([("loss", losses)], marks),
        *(_sheet(path) for path in _few(sorted((folder / "samples").glob("*.png")))),
    ]
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text("\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return folder / "report.html"


def chart(curves: Sequence[Curve], marks: Sequence[float] = ()) -> str:
    """Lines over steps as inline SVG, with the range of both axes and a dashed line at every mark."""
    points = [point for _, curve in curves for point in curve]
    if len(points) < 2:
        return "<p>Not measured often enough for a curve.</p>"
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1e-6)

    def place(x: float, y: float) -> str:
        across = _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - 8)
        down = 8 + (1 - (y - y0) / (y1 - y0)) * (_HEIGHT - _BOTTOM - 8)
        return f"{across:.1f},{down:.1f}"

    drawn = []
    for (name, curve), colour in zip(curves, _COLOURS, strict=False):
        line = " ".join(place(x, y) for x, y in curve)
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{line}"/>')
        drawn.append(f'<text x="{_WIDTH - 90}" y="{22 + 14 * (len(drawn) // 2)}" style="fill:{colour}">{name}</text>')
    for mark in marks:
        at = place(min(max(mark, x0), x1), y0).partition(",")[0]
        drawn.append(
            f'<line x1="{at}" x2="{at}" y1="8" y2="{_HEIGHT - _BOTTOM}" stroke="#888" stroke-dasharray="4 3"/>'
        )
    axes = (
        f'<text x="2" y="16">{y1:.4g}</text><text x="2" y="{_HEIGHT - _BOTTOM}">{y0:.4g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{x0:.0f}</text>'
        f'<text x="{_WIDTH - 60}" y="{_HEIGHT - 6}">step {x1:.0f}</text>'
    )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{axes}{"".join(drawn)}</svg>'


def _facts(summary: dict[str, Any]) -> str:
    names = ("status", "steps", "samples", "minutes", "samples_per_second", "examples", "broken", "peak_memory_mb")
    rows = "".join(f"<tr><td>{n.replace('_', ' ')}</td><td>{summary[n]}</td></tr>" for n in names if n in summary)
    return f"<table>{rows}</table>"


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


def _sheet(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = "hint, target, made with the caption, made with no prompt"
    return f'<h2>{html.escape(path.stem)}</h2><p><small>{caption}</small></p><img src="data:image/png;base64,{data}">'


def _few(paths: list[Path], most: int = 4) -> list[Path]:
    """First, last, and evenly spread between."""
    if len(paths) <= most:
        return paths
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    from zeroconv.training.runlog import RunLog

    return RunLog(path, active=False).read()
