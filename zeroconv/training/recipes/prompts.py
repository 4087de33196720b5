"""Prompts and hints of the user's own, whose pictures show how a run goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from zeroconv.training.recipes.settings import Strict

MOST = 64  # prompts of a recipe


class ValidationPrompt(Strict):
    """One entry of training.validation: `count` pictures of a prompt, of a control with a hint.

    hint: a picture that is the hint, or with `draw` the photograph that the hint of that name is
    drawn from; `canny:photo.png` says both. kind: what a finished hint shows, of a Union control
    whose hints differ; by default data.condition. seed: of the first picture; by default the
    number of the entry, counted from 0.
    """

    prompt: str = Field(max_length=10_000)
    hint: str | None = None
    draw: str | None = None
    kind: str | None = None
    negative: str = Field("", max_length=10_000)
    seed: int | None = Field(None, ge=0, lt=2**53)
    count: int = Field(1, ge=1, le=16)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        return split(values, Path())

    @model_validator(mode="after")
    def _drawn_from_something(self) -> ValidationPrompt:
        if self.draw is not None and self.hint is None:
            raise ValueError("training.validation has draw without hint; name the photograph")
        return self


def beside_recipe(values: dict[str, Any], recipe: Path) -> dict[str, Any]:
    """The values of a recipe's file, where hints of training.validation are paths from its folder
    on.
    """
    training = values.get("training")
    if not isinstance(training, dict):
        return values
    entries = training.get("validation")
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, list | tuple):
        return values
    folder = recipe.absolute().parent
    return {
        **values,
        "training": {**training, "validation": [split(entry, folder) for entry in entries]},
    }


def split(entry: Any, folder: Path) -> Any:
    """An entry with `canny:photo.png` as hint and draw, and the hint's path from `folder` on. A
    file that has the whole text as its name is a hint.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("hint"), str):
        return entry
    text, drawn = entry["hint"], entry.get("draw")
    name, colon, rest = text.partition(":")
    if colon and drawn is None and not _path(text, folder).exists() and _is_word(name):
        text, drawn = rest.strip(), name.strip()
    more = {} if drawn is None else {"draw": drawn}
    return {**entry, "hint": str(_path(text, folder)), **more}


def _is_word(name: str) -> bool:
    """Whether what is before a colon may be a condition: no drive (`C:`), no folder."""
    return len(name.strip()) > 1 and not {"/", "\\"} & set(name)


def _path(text: str, folder: Path) -> Path:
    path = Path(os.path.expanduser(text))
    try:
        exists = path.is_absolute() and path.exists()
    except (OSError, ValueError):  # a NUL, or too long
        return Path("no file")
    return path if exists or path.is_absolute() else folder / path
