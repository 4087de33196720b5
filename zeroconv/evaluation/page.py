"""A report as one HTML file: the figures, and the best, median and worst pictures behind them.
Nothing is loaded.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from zeroconv.conditions.scores import METRICS
from zeroconv.evaluation.fidelity import COLUMNS, Shown
from zeroconv.evaluation.reading import as_picture

EACH = 6  # pictures a group

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}small{color:#777}.row{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;width:min(100%,20rem)}figure img{width:24.5%;image-rendering:pixelated}
figcaption{font-size:.8rem}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}td,th{border-color:#444}small{color:#999}}
"""


def write_page(report: dict[str, Any], shown: Shown) -> str:
    """The page's text. Each picture stands as hint, what was read back, the picture made, the real
    one.
    """
    title = f"{report['control']}: is the {report['condition']} hint followed?"
    facts = ", ".join(
        f"{name} {report[name]}"
        for name in ("base", "data", "prompts", "guidance", "cfg", "steps", "judge")
    )
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="generator" content="zeroconv">',  # by this the file is known as ours
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(facts)}; seeds {report['seeds'][0]} to {report['seeds'][1]}.</p>",
        _metrics(report),
        _others(report),
    ]
    metric = next(iter(report["metrics"]))
    order = ranked(shown, metric)
    middle = len(order) // 2 - min(EACH, len(order)) // 2
    groups = {
        "Best": order[:EACH],
        "Median": order[middle : middle + EACH],
        "Worst": order[::-1][:EACH],
    }
    parts.append(f"<p>Pictures by {html.escape(metric)}; each: hint, read back, made, real.</p>")
    for name, rows in groups.items():
        figures = "".join(_figure(report["condition"], shown, i, metric) for i in rows)
        parts.append(f'<h2>{name}</h2><div class="row">{figures}</div>')
    return "\n".join(parts) + "\n"


def picture_value(stat: Any) -> float:
    """A metric's figure of one picture: itself, or the mean of its defined shares."""
    if isinstance(stat, np.ndarray):
        if stat.shape[0] != 2 or not (stat[1] > 0).any():
            return 1.0
        return float(np.mean(stat[0][stat[1] > 0] / stat[1][stat[1] > 0]))
    return float(stat)


def ranked(shown: Shown, metric: str) -> list[int]:
    """Rows from the best to the worst."""
    values = [picture_value(score[metric]) for score in shown.scores]
    return sorted(
        range(len(values)), key=lambda i: values[i], reverse=METRICS[metric].better == "higher"
    )


def _metrics(report: dict[str, Any]) -> str:
    columns = [name for name in COLUMNS if name in report["n"]]
    head = "".join(f"<th>{name} <small>n={report['n'][name]}</small></th>" for name in columns)
    rows = []
    for metric, values in report["metrics"].items():
        cells = "".join(f"<td>{_span(values.get(name))}</td>" for name in columns)
        lift = report["lift"].get(metric, {})
        cells += "".join(
            f"<td>{_span(lift.get(f'over {other}'))}</td>" for other in ("shuffled", "none")
        )
        meaning = html.escape(METRICS[metric].meaning)
        rows.append(
            f'<tr><td title="{meaning}">{metric}<br><small>{meaning}</small></td>{cells}</tr>'
        )
    head = f"<th></th>{head}<th>lift over shuffled</th><th>lift over none</th>"
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _others(report: dict[str, Any]) -> str:
    rows = []
    tables = {
        **{k: v for k, v in report["pictures"].items() if k != "features"},
        **report["caption"],
    }
    for name, values in {
        **tables,
        **({"clip": report["clip"]} if "clip" in report else {}),
    }.items():
        spans = {"": values} if "mean" in values else values
        text = "; ".join(f"{column} {_span(value)}".strip() for column, value in spans.items())
        label = f"caption: colour of the {name}" if name in report["caption"] else name
        rows.append(f"<tr><td>{html.escape(label)}</td><td>{text}</td></tr>")
    return (
        f"<table>{''.join(rows)}</table><p><small>Features: "
        f"{html.escape(report['pictures']['features'])}.</small></p>"
    )


def _span(value: dict[str, float | None] | None) -> str:
    if value is None or value["mean"] is None:
        return "–"
    low, high = value["low"], value["high"]
    limits = "" if low is None or high is None else f" <small>{low:.3f}…{high:.3f}</small>"
    return f"{value['mean']:.3f}{limits}"


def _figure(condition: str, shown: Shown, i: int, metric: str) -> str:
    pair = shown.pairs[i]
    images = [
        pair.hint,
        as_picture(condition, shown.reads[i], shown.made[i].size),
        shown.made[i],
        pair.image,
    ]
    caption = f"{picture_value(shown.scores[i][metric]):.3f} {pair.caption}"
    return f"<figure>{_pictures(images)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _pictures(images: Sequence[Image.Image]) -> str:
    tags = []
    for image in images:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
        tags.append(
            f'<img alt="" src="data:image/png;base64,'
            f'{base64.b64encode(buffer.getvalue()).decode()}">'
        )
    return "".join(tags)
