"""Run experiments by name; without one, list them.

    python -m experiments fig7 [--count 20 …]     one figure, with its own options
    python -m experiments shipped                 those that need no training: 5, 6, 7, 11, 12
    python -m experiments all                     everything; hours, because it trains

Each figure is a process of its own, so that one that fails leaves the others alone. All of them go on where they were
stopped.
"""

from __future__ import annotations

import subprocess
import sys
import time

from experiments.registry import FIGURES, HERE, chosen, module_of
from zeroconv.errors import UserError


def main(words: list[str]) -> int:
    names = [word for word in words if not word.startswith("-")][: _names(words)]
    options = words[len(names) :]
    if not names:
        print(listing())
        return 0
    failed = []
    for number in chosen(names):
        module = module_of(number)
        if module is None:
            print(f"figure {number}: {FIGURES[number].title}: there is no experiment in {HERE}", flush=True)
            failed.append(number)
            continue
        print(f"== figure {number}: {FIGURES[number].title} ({module})", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, "-m", module, *options], cwd=HERE.parent).returncode
        print(f"== figure {number}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        if code:
            failed.append(number)
    if failed:
        print(f"failed: {', '.join(f'figure {number}' for number in failed)}", file=sys.stderr)
    return int(bool(failed))


def _names(words: list[str]) -> int:
    """Names stand first; what follows the first option belongs to the figures."""
    return next((i for i, word in enumerate(words) if word.startswith("-")), len(words))


def listing() -> str:
    lines = []
    for number, figure in FIGURES.items():
        module = module_of(number) or "not in this checkout"
        needs = "shipped weights" if figure.shipped else "trains first"
        lines.append(f"fig{number:<3} {figure.title} · {needs} · {module}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"zeroconv: {error}", file=sys.stderr)
        sys.exit(2)
