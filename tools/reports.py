"""Results as JSON files and as tables: shared by `benchmarks` and `experiments`.

A result is an object with "columns", "rows", the "command" that made it, and a "note".
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroconv.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent

# what a plain object says about itself and is no measurement
_ASIDE = ("command", "note", "machine", "date")


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write `path` as a whole or not at all; its folder is made where it is missing.

    Raises TypeError for what JSON has no form for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> None:
    """A line a row on standard output, the note last."""
    for row in (columns, *rows):
        print(" | ".join(str(value) for value in row))

    print(note, flush=True)


def span(value: Mapping[str, float] | None, digits: int = 3) -> str:
    """Mean and 95% interval in a table cell, from "mean", "low" and "high"; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def signed(value: Mapping[str, float], digits: int = 3) -> str:
    """A difference and its 95% interval, with their signs."""
    return f"{value['mean']:+.{digits}f} [{value['low']:+.{digits}f}, {value['high']:+.{digits}f}]"


def cell(value: Any) -> str:
    """Three significant digits for a number; a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|")
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown_table(result: Mapping[str, Any]) -> str:
    """A result as a Markdown table; below it the command that made it, and its note.

    An object without "rows" becomes a line a key, or a row a key where all its values are objects.
    """
    columns, rows = _columns_and_rows(result)
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    lines = ["| " + " | ".join(map(cell, line)) + " |\n" for line in (columns, rule, *rows)]

    command = f"Made by `{result['command']}`." if result.get("command") else ""
    below = " ".join(filter(None, [command, str(result.get("note") or "")]))
    return "".join(lines) + (f"\n{_wrapped(below)}\n" if below else "")


def _wrapped(text: str) -> str:
    """At most 100 characters a line. Long words, such as paths, stay whole."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _columns_and_rows(result: Mapping[str, Any]) -> tuple[list[Any], list[list[Any]]]:
    if "rows" in result:
        rows = [list(row) for row in result["rows"]]
        return list(result.get("columns") or [""] * len(rows[0])), rows

    facts = {key: value for key, value in result.items() if key not in _ASIDE}
    nested = {key: value for key, value in facts.items() if isinstance(value, Mapping)}
    if nested and len(nested) == len(facts):
        names = list(dict.fromkeys(name for value in nested.values() for name in value))
        return ["", *names], [[key, *map(value.get, names)] for key, value in nested.items()]

    plain = [[key, value] for key, value in facts.items() if not isinstance(value, Mapping | list)]
    return ["", "value"], plain


def replace_blocks(text: str, mark: str, body: Callable[[str], str]) -> str:
    """The page with `body(NAME)` between every `<!-- mark:NAME -->` and its `<!-- /mark -->`."""
    start, end = f"<!-- {mark}:", f"<!-- /{mark} -->"
    pattern = re.compile(rf"({start}([\w.-]+) -->\n)(.*?)({end})", re.DOTALL)
    return pattern.sub(lambda match: match[1] + body(match[2]) + match[4], text)
