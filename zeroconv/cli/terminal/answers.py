"""What a command answers: JSON for a program, anything for a person."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from json import dumps
from pathlib import Path
from typing import Any

import typer

from zeroconv.errors import UserError
from zeroconv.files import is_stdout


def to_json(report: Any) -> str:
    """JSON that every reader takes: numbers that are none (NaN, infinities) are null."""
    return dumps(_finite(report), indent=2, default=str, allow_nan=False)


def answer(report: Mapping[str, Any], json: bool, show: Callable[[], Any]) -> None:
    """Print the report for a program, whole or not at all, or call `show` for a person."""
    if json:
        typer.echo(to_json(report))
    else:
        show()


def answers_on_stdout(out: Path, json: bool) -> bool:
    """Whether stdout is free for an answer; False where the output itself goes there.

    Raises UserError where both would.
    """
    if os.path.isdir(out) or not is_stdout(out):
        return True
    if json:
        raise UserError(f"--json and {out} both go to stdout; name a file for one of them")
    return False


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
