"""Rewrite docs/paper.md and docs/paper/*.md from experiments/results/*.json, so that no figure is
copied by hand.

    python -m experiments.page             rewrite the pages
    python -m experiments.page --check     exit 1 if a page and the results disagree

A block stands between `<!-- paper:NAME -->` and `<!-- /paper -->` and shows
experiments/results/NAME.json: what the paper says and whether ours agrees, the pictures, the table.
`short-NAME` shows the verdicts and the first picture alone, `summary` a line a figure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.registry import FIGURES
from tools.reports import ROOT, cell, markdown_table, read_json, replace_blocks
from zeroconv.files import atomic_write

DOCS = ROOT / "docs"
RESULTS = ROOT / "experiments" / "results"
VERDICT = {True: "reproduced", False: "**not reproduced**"}
ASKED_BY_US = "(our question)"  # how a claim begins that the paper does not make


def pages(docs: Path = DOCS) -> list[Path]:
    """The overview and the pages of the figures."""
    return [docs / "paper.md", *sorted((docs / "paper").glob("*.md"))]


def rewrite(text: str, results: Path, pictures: str = "pictures/paper") -> str:
    """The page with every block made anew; one without a result says so.

    pictures: their folder as the page names it.
    """

    def body(name: str) -> str:
        if name == "summary":
            return summary(results)

        path = results / f"{name.removeprefix('short-')}.json"
        if not path.is_file():
            return "*not measured yet*\n"

        result = read_json(path)
        if name.startswith("short-"):
            return short(result, _claims(results, path.stem), pictures)
        return together(result, results) if name == "shipped" else section(result, pictures)

    return replace_blocks(text, "paper", body)


def verdict(claims: Sequence[Mapping[str, Any]]) -> str:
    """What the claims of the paper among `claims` come to, in a word or three."""
    agree = [bool(c["agrees"]) for c in claims if not c["paper"].startswith(ASKED_BY_US)]
    if not agree:
        return "–"
    if all(agree):
        return "reproduced"

    return "**reproduced in part**" if any(agree) else "**not reproduced**"


def short(result: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], pictures: str) -> str:
    """The verdict of each claim, and the first picture."""
    parts = [_verdicts(claims)] if claims else []
    parts += [_picture(picture, pictures) for picture in (result.get("pictures") or [])[:1]]

    return "\n".join(parts)


def section(result: Mapping[str, Any], pictures: str = "pictures/paper") -> str:
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
    parts += [_picture(picture, pictures) for picture in result.get("pictures") or []]
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
    """A line a figure: what the paper's claims on it come to, and how many of them hold."""
    lines = ["| figure | | verdict | claims that hold |", "| ---: | --- | --- | ---: |"]
    for number, figure in FIGURES.items():
        name = f"fig{number:02d}"
        claims = [c for c in _claims(results, name) if not c["paper"].startswith(ASKED_BY_US)]
        if not (results / f"{name}.json").is_file():
            lines.append(f"| {number} | {figure.title} | not measured | – |")
            continue
        held = f"{sum(bool(c['agrees']) for c in claims)} of {len(claims)}" if claims else "–"
        lines.append(f"| {number} | {figure.title} | {verdict(claims)} | {held} |")

    return "\n".join(lines) + "\n"


def _claims(results: Path, name: str) -> list[dict[str, Any]]:
    """Those of a figure and of what else was asked of it (fig08-scribble), which they name."""
    claims = []
    for path in (results / f"{name}.json", *sorted(results.glob(f"{name}-*.json"))):
        more = path.stem.removeprefix(name).removeprefix("-")
        for claim in read_json(path).get("claims") or [] if path.is_file() else []:
            said = f"{claim['paper']} ({more})" if more else claim["paper"]
            claims.append({**claim, "paper": said})

    return claims


def _verdicts(claims: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| finding | |", "| --- | --- |"]
    lines += [f"| {cell(c['paper'])} | {VERDICT[bool(c['agrees'])]} |" for c in claims]

    return "\n".join(lines) + "\n"


def _picture(text: str, folder: str) -> str:
    name, _, caption = text.partition(": ")

    return f"![{caption}]({folder}/{name})\n\n{_sentence(caption)}\n"


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
    wrong = 0

    for path in pages():
        folder = "pictures/paper" if path.parent == DOCS else "../pictures/paper"
        old = path.read_text(encoding="utf-8")
        new = rewrite(old, RESULTS, folder)
        if new == old:
            continue
        if "--check" in arguments:
            wrong = 1
            name = path.relative_to(ROOT)
            print(
                f"{name} does not show experiments/results: run python -m experiments.page",
                file=sys.stderr,
            )
            continue
        with atomic_write(path) as temporary:
            temporary.write_text(new, encoding="utf-8")

    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
