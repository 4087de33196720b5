"""Lists the benchmarks: python -m benchmarks"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
GROUPS = ("quality", "speed", "robustness")


def first_line(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def commands(group: str) -> Iterator[tuple[str, str]]:
    """Command and meaning of each benchmark of a group.

    A module is a command if its text names itself behind `python -m`; the others are parts of one.
    """
    for path in sorted((HERE / group).glob("*.py")):
        command = f"python -m benchmarks.{group}.{path.stem}"
        opening = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if command in {" ".join(line.split()[:3]) for line in opening.splitlines()}:
            yield command, first_line(path)


def main() -> None:
    for group in GROUPS:
        print(f"{group}: {first_line(HERE / group / '__init__.py')}")
        for command, meaning in commands(group):
            print(f"  {command}\n      {meaning}")
        print()

    print("The options of one: python -m benchmarks.GROUP.NAME --help")
    print("Figures into the pages: python -m benchmarks.figures")


if __name__ == "__main__":
    main()
