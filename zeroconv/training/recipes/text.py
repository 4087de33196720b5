"""From a recipe's file and the overrides of a command line to its values, before anything is
checked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from zeroconv.errors import UserError, without_secrets
from zeroconv.inputs import at_home, read_text
from zeroconv.training.recipes.yaml import parse_yaml

MOST_BYTES = 1 << 18  # of a recipe; those of this repository have about 1 KB


def read_recipe(path: str | os.PathLike, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a recipe file says, overridden, before anything is checked.

    UTF-8, UTF-16 or UTF-32, with or without a byte order mark; at most `MOST_BYTES`. Raises
    UserError, with the line where there is one, for what is no such file, no YAML (see
    `parse_yaml`) or no mapping.
    """
    path = at_home(path)
    try:
        text = read_text(path, MOST_BYTES, "recipe")
    except FileNotFoundError as error:
        raise UserError(
            f"there is no recipe {path}; give the path of a YAML file, such as "
            "recipes/stickers-canny.yaml."
        ) from error
    except OSError as error:
        raise UserError(f"the recipe {path} cannot be read ({error.strerror or error}).") from error

    values = parse_yaml(text, f"the recipe {path}")

    if not isinstance(values, dict):
        what = "empty" if values is None else "no mapping of settings"
        raise UserError(f"the recipe {path} is {what}; it needs at least out, data and training.")
    return apply_overrides(values, overrides)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with "a.b=c" set; c is read as YAML, so that [x, y], true and 1e-4 mean
    what they say.
    """
    values = dict(values)

    for override in overrides:
        path, equals, text = override.partition("=")
        shown = without_secrets(override if len(override) <= 120 else f"{override[:119]}…")
        *folders, last = path.split(".")

        if not equals or not all((*folders, last)) or len(folders) > 8:
            raise UserError(f"the override {shown!r} is not of the form training.steps=2000.")

        section = values
        for step in folders:
            inner = section.get(step)
            if inner is not None and not isinstance(inner, dict):
                raise UserError(
                    f"the override {shown!r} goes into {step!r}, which holds a value, not settings."
                )
            section[step] = dict(inner or {})
            section = section[step]

        section[last] = parse_yaml(text, f"the value of the override {shown!r}")
    return values
