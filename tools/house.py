"""A row of figures a folder: python -m tools.house [FOLDER …], zeroconv by default.

A folder's row counts its own files and leaves out those of folders below it. The last row counts
all. "share" is a folder's part of all lines; comments and comprehensions are given per 1000 lines.
The length of a function runs from its `def` to its last line. These are for orientation.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

LONG_FUNCTION = 50  # lines
WIDE = 100  # characters
COLUMNS = (
    "folder", "files", "lines", "share", "longest file", "longest function",
    "comments", "comprehensions", f"functions > {LONG_FUNCTION}", f"lines > {WIDE}",
)  # fmt: skip

# comments that are meant for a tool
_DIRECTIVES = ("noqa", "type:", "fmt:", "pragma:", "!")
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Source:
    """The figures of one file. `longest` is the longest function's length and name."""

    name: str
    lines: int
    longest: tuple[int, str]
    comments: int
    comprehensions: int
    long_functions: int
    wide_lines: int


def read_source(path: Path) -> Source:
    """Raises SyntaxError where the file is no Python, with its path and line."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    nodes = list(ast.walk(ast.parse(text, str(path))))

    functions = [_length(node) for node in nodes if _is_function(node)]
    return Source(
        name=path.name,
        lines=len(lines),
        longest=max(functions, default=(0, "")),
        comments=_comments(text),
        comprehensions=sum(isinstance(node, _COMPREHENSIONS) for node in nodes),
        long_functions=sum(length > LONG_FUNCTION for length, _ in functions),
        wide_lines=sum(len(line) > WIDE for line in lines),
    )


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _length(node: ast.AST) -> tuple[int, str]:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return (node.end_lineno or node.lineno) - node.lineno + 1, node.name


def _comments(text: str) -> int:
    """Comments for readers. A comment of three lines counts as three."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    return sum(bool(comment) and not comment.startswith(_DIRECTIVES) for comment in comments)


def row(name: str, sources: Sequence[Source], everything: int) -> list[str]:
    """The cells of COLUMNS. `everything` is the number of lines that 100% stands for."""
    lines = sum(source.lines for source in sources)
    longest_file = max(sources, key=lambda source: source.lines)
    length, function = max(source.longest for source in sources)
    return [
        name,
        str(len(sources)),
        str(lines),
        f"{100 * lines / max(1, everything):.1f}%",
        f"{longest_file.lines} {longest_file.name}",
        f"{length} {function}".rstrip(),
        _per_thousand(sum(source.comments for source in sources), lines),
        _per_thousand(sum(source.comprehensions for source in sources), lines),
        str(sum(source.long_functions for source in sources)),
        str(sum(source.wide_lines for source in sources)),
    ]


def _per_thousand(count: int, lines: int) -> str:
    return f"{1000 * count / max(1, lines):.0f}"


def survey(roots: Iterable[Path]) -> list[list[str]]:
    """A row for each folder of `roots` that holds Python files, in order of path, and one for all.

    A folder that is given twice, or lies in another one of `roots`, is counted once.
    """
    folders: dict[Path, list[Source]] = {}
    paths = {path.resolve(): path for root in roots for path in root.rglob("*.py")}
    for path in sorted(paths.values()):
        folders.setdefault(path.parent, []).append(read_source(path))

    together = [source for sources in folders.values() for source in sources]
    everything = sum(source.lines for source in together)
    rows = [row(folder.as_posix(), sources, everything) for folder, sources in folders.items()]
    return [*rows, row("all", together, everything)] if rows else []


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart: text to the left, the rest to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {COLUMNS.index(name) for name in ("folder", "longest file", "longest function")}

    lines = []
    for cells in rows:
        padded = (
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.house", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("zeroconv")])
    folders = parser.parse_args(words).folders

    for folder in folders:
        if not folder.is_dir():
            parser.error(f"{folder} is no folder; give folders of Python files.")

    rows = survey(folders)
    if not rows:
        parser.error(f"there is no Python file in {', '.join(map(str, folders))}.")
    print(aligned([COLUMNS, *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
