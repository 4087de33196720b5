"""Every command with hostile options and arguments. The base is a tiny one, so that what is
accepted ends soon.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from tools.fuzz import mutate
from tools.fuzz.targets import Call, command

# commands that fetch, render thousands of pictures, or train for hours are called with what they
# must refuse alone
COMMANDS = (
    "generate",
    "annotate",
    "info",
    "convert",
    "transfer",
    "evaluate",
    "train",
    "cache",
    "annotators",
    "demo",
)


class Options:
    def prepare(self, room: Path) -> None:
        import typer

        from tests.helpers.tiny import randomise_
        from tests.helpers.tiny_folder import save_backbone
        from zeroconv.cli import app
        from zeroconv.control import ControlNet

        self.base = room / "base"
        backbone = save_backbone(self.base)
        self.control = room / "canny"
        randomise_(ControlNet.from_backbone(backbone, condition="canny")).save(self.control)
        group: Any = typer.main.get_command(app)
        self.commands = {name: group.commands[name] for name in COMMANDS if name in group.commands}

    def case(self, rng: Random, work: Path) -> Call:
        photo = work / "in" / "photo.png"
        Image.new("RGB", (64, 64), "white").save(photo)
        name = rng.choice(list(self.commands))
        words = self._sound(name, rng, work, photo)
        options = [
            p for p in self.commands[name].params if p.opts[0].startswith("--") and p.name != "help"
        ]
        for option in rng.sample(options, k=min(len(options), rng.choice((1, 1, 2, 3)))):
            words += self._hostile(rng, option, work)
        return command(name, *words)

    def _sound(self, name: str, rng: Random, work: Path, photo: Path) -> list[object]:
        """Words that the command takes, quick to carry out."""
        out = work / "out"
        odd = rng.choice(mutate.TEXTS).replace("\0", "")
        sound: dict[str, list[object]] = {
            "generate": ["a ball", "--base", self.base, "--steps", 1, "--out", out / "a.png"],
            "annotate": ["canny", photo, "--out", out / "hint.png"],
            "info": [rng.choice((self.base, self.control, odd or "x"))],
            "convert": [self.control, out / "new.safetensors", "--to", "original"],
            "transfer": [
                self.control,
                "--from",
                self.base,
                "--to",
                self.base,
                "--out",
                out / "moved",
            ],
            "evaluate": [
                self.control,
                "--base",
                self.base,
                "--data",
                "playroom:test:2",
                "--limit",
                2,
                "--steps",
                1,
            ],
            "train": [work / "in" / "recipe.yaml"],
            "cache": [work / "in" / "recipe.yaml"],
            "annotators": [],
            "demo": ["--base", self.base, "--steps", 1, "--seeds", 1, "--out", out / "demo"],
        }
        words = sound[name]
        if name == "generate" and rng.random() < 0.5:
            words += ["--control", f"{self.control}{rng.choice('=:')}{photo}"]
        return words

    def _hostile(self, rng: Random, option: Any, work: Path) -> list[object]:
        if option.is_flag:
            return [option.opts[0]]
        texts = [
            text.replace("\0", "")
            for text in mutate.TEXTS
            if "\ud800" not in text and not text.startswith(("/tmp", "~"))
        ]
        # a relative path is one below out/, where a command may write
        paths = [f"{work}/out/{name}" for name in ("a.png", "b", "nested", "nested/c.json")]
        numbers = [str(number) for number in mutate.NUMBERS] + [
            "1.5",
            "-0.5",
            "nan",
            "inf",
            "1e400",
            "0x10",
        ]
        return [
            option.opts[0],
            rng.choice((rng.choice(texts), rng.choice(paths), rng.choice(numbers))),
        ]
