"""From the body of /train to a recipe: names become what they stand for, outputs go into the data
folder.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroconv.conditions import find
from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.jsonfile import read_json, to_json
from zeroconv.serving.catalogue import Catalogue, Entry
from zeroconv.serving.errors import ApiError
from zeroconv.serving.settings import ServerSettings
from zeroconv.training.recipes.recipe import Recipe, parse_recipe

RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
FEW = 20  # pictures; of fewer none can be held out


def runs_folder(settings: ServerSettings) -> Path:
    return settings.data.resolve() / "runs"


def recipe_file(settings: ServerSettings, name: str) -> Path:
    """Raises ApiError 404 for what is no run's name."""
    if not RUN.fullmatch(name):
        raise ApiError(404, "There is no such run.")
    return runs_folder(settings) / f"{name}.json"


def recipe_of(
    body: Mapping[str, Any], settings: ServerSettings, catalogue: Catalogue
) -> tuple[str, Recipe, list[str]]:
    """Name, recipe and notes of a body as `TrainBody` dumps it. Raises UserError."""
    notes: list[str] = []
    limits = settings.limits
    name = body["name"] or f"{body['condition']}-{secrets.token_hex(3)}"
    if not RUN.fullmatch(name):
        raise UserError(f"name {name[:80]!r} is no run's; give letters, digits, - and _")
    if body["training"]["steps"] > limits.train_steps:
        raise UserError(f"training.steps is above {limits.train_steps}, this server's most")
    condition = find(body["condition"]).name
    data = catalogue.dataset(body["data"])
    control = {key: value for key, value in body["control"].items() if value is not None}
    if "init" in control:
        control["init"] = catalogue.control(control["init"]).path
    if control.get("init") or control["kind"] != "controlnet":
        control.pop("connections")
    base = catalogue.base(body["base"])
    values = {
        "base": base.path,
        "base_files": dict(base.files),
        "out": str(runs_folder(settings) / name),
        "control": control,
        "data": {
            "train": _train_spec(data, body["examples"]),
            "validation": _validation_spec(data, body, catalogue, notes),
            "condition": condition,
            "size": body["size"],
            "flip": body["flip"],
            "cache": str(settings.data.resolve() / "cache"),
        },
        "training": {k: v for k, v in body["training"].items() if v is not None},
    }
    if settings.device == "cpu":
        values["device"] = "cpu"
    return name, parse_recipe(values, "the training"), notes


def _train_spec(data: Entry, examples: int) -> str:
    return data.facts["train"].format(examples=examples, quarter=-(-examples // 4))


def limited(spec: str, count: int) -> str:
    """A spec of at most so many examples."""
    return f"{spec}{'&' if '?' in spec else '?'}limit={count}"


def _validation_spec(
    data: Entry, body: Mapping[str, Any], catalogue: Catalogue, notes: list[str]
) -> str | None:
    if body["validation"] is not None:
        return limited(catalogue.dataset(body["validation"]).facts["measure"], 64)
    known = data.facts.get("validation")
    if known is not None:
        return known
    if min(body["examples"], _pictures(Path(data.path))) < FEW:
        notes.append(
            f"the data set has fewer than {FEW} pictures, so the hint gain is measured on those "
            "that are trained on"
        )
        return _train_spec(data, body["examples"])
    return None


def _pictures(folder: Path) -> int:
    """How many an uploaded set's folder holds; of others enough is taken for granted, and the run
    itself says if it is not so.
    """
    lists = folder / "metadata.jsonl"
    if not lists.is_file():
        return FEW
    with lists.open("rb") as file:
        return sum(1 for _ in zip(file, range(FEW), strict=False))


def write_recipe(path: Path, recipe: Recipe) -> None:
    """JSON, which is YAML too. Paths in the data folder are written from the recipe's folder on,
    where the training runs, so that the data folder can be moved.
    """
    values = portable(recipe.model_dump(mode="json"), path.parent)
    with atomic_write(path) as temporary:
        temporary.write_text(to_json(values, indent=2), encoding="utf-8")


def portable(value: Any, runs: Path) -> Any:
    """The same value, in which texts that begin with the data folder's path do not."""
    if isinstance(value, dict):
        return {name: portable(inner, runs) for name, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner, runs) for inner in value]
    for folder, word in ((runs, "."), (runs.parent, "..")):
        if isinstance(value, str) and value.startswith(f"{folder}{os.sep}"):
            return word + value[len(str(folder)) :]
    return value


def read_recipe_file(path: Path) -> Recipe:
    """Raises ApiError 404 where there is none."""
    if not path.is_file():
        raise ApiError(404, "There is no such run.")
    try:
        return parse_recipe(read_json(path), "the run's recipe")
    except OSError as error:
        raise UserError(f"the run's recipe cannot be read ({error.strerror}).") from error
