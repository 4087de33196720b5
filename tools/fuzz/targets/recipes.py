"""Recipes: mutated YAML, values and overrides. They are read and checked; nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import yaml

from tools.fuzz import mutate
from tools.fuzz.targets import Call, detailed

ROOT = Path(__file__).parent.parent.parent.parent
TAGS = (
    "!!int foo",
    "!!python/object:os.system x",
    "2026-01-01",
    "!!binary aGk=",
    "0x" + "f" * 5000,
    "1" * 5000,
    ".inf",
)
BOMB = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(9))


class Recipes:
    def prepare(self, room: Path) -> None:
        # the first import takes long beside busy processes; it is no hang of a case
        import zeroconv.training  # noqa: F401

        self.seeds = [path.read_text() for path in sorted((ROOT / "recipes").glob("*.yaml"))]

    def case(self, rng: Random, work: Path) -> Call:
        text = rng.choice(self.seeds)
        kind = rng.randrange(6)
        if kind == 0:
            data = mutate.raw(rng, text.encode())
        elif kind == 1:
            lines = text.splitlines()
            at = rng.randrange(len(lines))
            name = lines[at].partition(":")[0]
            lines[at] = f"{name}: {rng.choice(TAGS)}"
            data = "\n".join(lines).encode()
        elif kind == 2:
            data = (BOMB + "\n" + text).encode()
        elif kind == 3:
            data = mutate.encoded(rng, text)
        else:
            values = mutate.tree(rng, yaml.safe_load(text))
            data = json.dumps(values, default=str).encode("utf-8", "replace")
        path = work / "in" / "recipe.yaml"
        path.write_bytes(data)

        overrides = [_override(rng) for _ in range(rng.choice((0, 0, 1, 2)))]
        return detailed(_read, path, overrides)


def _override(rng: Random) -> str:
    name = rng.choice(
        (
            "training.steps",
            "training.seed",
            "data.size",
            "out",
            "training",
            "",
            "a.b.c",
            "data.train",
        )
    )
    given = rng.choice((*map(str, mutate.NUMBERS), *mutate.TEXTS, *TAGS))
    return f"{name}={given}"


def _read(path: Path, overrides: list[str]) -> None:
    from zeroconv.training import load_recipe

    recipe = load_recipe(path, overrides)
    json.dumps(recipe.model_dump(mode="json"), allow_nan=False)
    if "~" in recipe.out.parts:
        raise AssertionError("a folder named ~ would be made")
