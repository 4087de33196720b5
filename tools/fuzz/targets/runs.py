"""A run's folder with mutated files, gone on with: it goes on, or says in a sentence why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

from PIL import Image

from tools.fuzz import mutate
from tools.fuzz.targets import Call, command

RECIPE = """
out: {out}
base: {base}
data: {{train: {data}, validation: {data}, condition: canny, size: 64, workers: 1}}
training: {{steps: {steps}, batch_size: 2, learning_rate: 1e-4, checkpoint_every: 1, keep: 3,
  validate_every: 2,
  sample_count: 0, log_every: 1, threads: 1}}
"""


class Runs:
    owns = ("out/run",)  # files that the commands wrote themselves

    def prepare(self, room: Path) -> None:
        from tests.helpers.tiny_folder import save_backbone
        from zeroconv.training import train_command

        self.base = room / "base"
        save_backbone(self.base)
        self.data = room / "pictures"
        self.data.mkdir()
        for i in range(6):
            Image.new("RGB", (64, 64), (40 * i, 90, 200)).save(self.data / f"{i}.png")
            (self.data / f"{i}.txt").write_text(f"picture {i}")
        self.sound = room / "sound"
        recipe = room / "recipe.yaml"
        recipe.write_text(RECIPE.format(out=self.sound, base=self.base, data=self.data, steps=3))
        train_command(recipe)

    def case(self, rng: Random, work: Path) -> Call:
        out = work / "out" / "run"
        shutil.copytree(self.sound, out)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        for _ in range(rng.choice((1, 1, 2, 3))):
            _damage(rng, rng.choice(files))
        recipe = work / "in" / "recipe.yaml"
        recipe.write_text(
            RECIPE.format(out=out, base=self.base, data=self.data, steps=rng.choice((2, 3, 4, 4)))
        )
        return command("train", recipe)


def _damage(rng: Random, path: Path) -> None:
    if not path.is_file():
        return
    try:
        _damage_well(rng, path)
    except ValueError:  # what it held was damaged before
        path.write_bytes(mutate.raw(rng, path.read_bytes()))


def _damage_well(rng: Random, path: Path) -> None:
    kind = rng.randrange(7)
    if kind == 0:
        path.unlink()
        path.symlink_to("/nowhere")
    elif kind == 1:
        path.unlink()
    elif kind == 2:
        path.write_bytes(rng.choice(mutate.BYTES))
    elif kind == 3 and path.suffix == ".json":
        path.write_text(
            json.dumps(mutate.tree(rng, json.loads(path.read_text() or "0")), default=str)
        )
    elif kind == 4 and path.suffix == ".jsonl":
        lines = [
            json.dumps(mutate.tree(rng, json.loads(line))) for line in path.read_text().splitlines()
        ]
        path.write_text("\n".join(lines))
    else:
        path.write_bytes(mutate.raw(rng, path.read_bytes()))
