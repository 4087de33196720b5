"""`zeroconv reproduce`: hands its words to the experiments of the checkout, which the package does
not know.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from zeroconv.errors import UserError

# the checkout, where the package is installed with pip install -e
_BESIDE = Path(__file__).resolve().parents[2]


def find_checkout(places: Sequence[Path] | None = None) -> Path:
    """The folder that holds experiments/: the package's own checkout, or the current folder. Raises
    UserError.
    """
    for folder in places if places is not None else (_BESIDE, Path.cwd()):
        if (folder / "experiments" / "__main__.py").is_file():
            return folder
    raise UserError(
        "the experiments are no part of the installed package; run this in a checkout of "
        "zeroconv's repository."
    )


def run(words: Sequence[str]) -> int:
    """`python -m experiments WORDS` in the checkout; returns its exit code."""
    root = find_checkout()
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", "experiments", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
    ).returncode
