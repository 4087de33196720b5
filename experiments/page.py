"""Rewrite docs/paper.md from experiments/results/*.json, so that no figure is copied by hand.

    python -m experiments.page             rewrite docs/paper.md
    python -m experiments.page --check     exit 1 if the page and the results disagree

A block stands between `<!-- paper:NAME -->` and `<!-- /paper -->` and shows
experiments/results/NAME.json: what the paper says and whether ours agrees, the pictures, the table.
`summary` is a block of its own: a line a claim.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.registry import FIGURES
from tools.reports import ROOT, cell, markdown_table, read_json, replace_blocks
from zeroconv.files import atomic_write

PAGE = ROOT / "docs" / "paper.md"
RESULTS = ROOT / "experiments" / "results"
VERDICT = {True: "agrees", False: "**does not agree**"}


def rewrite(text: str, results: Path) -> str:
    """The page with every block made anew; one without a result says so."""

    def body(name: str) -> str:
        if name == "summary":
            return summary(results)

        path = results / f"{name}.json"
        if not path.is_file():
            return "*not measured yet*\n"

        result = read_json(path)
        return together(result, results) if name == "shipped" else section(result)

    return replace_blocks(text, "paper", body)


def section(result: Mapping[str, Any]) -> str:
    """Verdicts, pictures and table of one figure; each part only where the result has it."""
    parts = []
    if result.get("claims"):
        lines = ["| claim | measured here | |", "| --- | --- | --- |"]
        for claim in result["claims"]:
            lines.append(
                f"| {cell(claim['paper'])} | {cell(claim['ours'])} | "
                f"{VERDICT[bool(claim['agrees'])]} |"
            )
        parts.append("\n".join(lines) + "\n")
    for picture in result.get("pictures") or []:
        name, _, caption = picture.partition(": ")
        parts.append(f"![{caption}](pictures/paper/{name})\n\n{_sentence(caption)}\n")
    text = markdown_table(
        {**result, "note": " ".join(filter(None, [result.get("note"), _cost(result)]))}
    )
    parts.append(f"<details><summary>The figures</summary>\n\n{text}\n</details>\n")
    return "\n".join(parts)


def together(result: Mapping[str, Any], results: Path) -> str:
    """What the figures of shipped weights took, and the CPU minutes of their processes together."""
    paths = [
        results / f"fig{number:02d}.json" for number, figure in FIGURES.items() if figure.shipped
    ]
    made = [read_json(path) for path in paths if path.is_file()]
    used = sum(one.get("call_cpu_minutes", 0.0) for one in made)
    note = f"{result['note']} The figures' own processes took {used:.0f} CPU minutes."
    return section({**result, "note": note})


def summary(results: Path) -> str:
    """A line a claim over all figures, and over what else was asked of them (fig08-scribble)."""
    lines = ["| figure | claim | |", "| ---: | --- | --- |"]
    for number in FIGURES:
        path = results / f"fig{number:02d}.json"
        claims = read_json(path).get("claims") if path.is_file() else None
        for claim in claims or []:
            lines.append(
                f"| {number} | {cell(claim['paper'])} | {VERDICT[bool(claim['agrees'])]} |"
            )
        for more in sorted(results.glob(f"fig{number:02d}-*.json")):
            name = f"{number}, {more.stem.partition('-')[2]}"
            for claim in read_json(more).get("claims") or []:
                lines.append(
                    f"| {name} | {cell(claim['paper'])} | {VERDICT[bool(claim['agrees'])]} |"
                )
        if not claims:
            lines.append(
                f"| {number} | {FIGURES[number].title} | "
                f"{'see below' if path.is_file() else 'not measured'} |"
            )
    return "\n".join(lines) + "\n"


def _cost(result: Mapping[str, Any]) -> str:
    parts, made, call = [], result.get("made"), result.get("call_cpu_minutes")
    if made:
        parts.append(
            f"{made['pictures']:,} pictures, {made['cpu_minutes']:g} CPU minutes to make them."
        )
    # a call that found trainings and pictures of other processes kept took less than they did
    if call and call >= (made or {}).get("cpu_minutes", 1.0):
        parts.append(f"The whole command: {call:g} CPU minutes.")
    return " ".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def main(arguments: list[str]) -> int:
    old = PAGE.read_text(encoding="utf-8")
    new = rewrite(old, RESULTS)
    if "--check" in arguments:
        if new != old:
            print(
                "docs/paper.md does not show experiments/results: run python -m experiments.page",
                file=sys.stderr,
            )
        return int(new != old)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
