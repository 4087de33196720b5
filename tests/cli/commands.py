"""Every command of `zeroconv`, as it is given on tiny models and pictures: what tests of all run.

A command is words, and `{out}` among them stands for where it writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image
from typer import Typer

from tests.helpers.sticker_packages import write_packages
from zeroconv.cli import app

OUT = ("--out", "{out}")


@dataclass(frozen=True)
class Command:
    """How a command is called. kind: of its output, "file", "folder" or "into"; None where it
    writes nothing. suffix: of the file. code: its exit code where nothing is in its way.
    """

    words: tuple[str, ...]
    kind: str | None = None
    suffix: str = ""
    code: int = 0

    def filled(self, out: Path | None) -> list[str]:
        return [word.replace("{out}", str(out)) for word in self.words]


def make_inputs(folder: Path) -> Path:
    """Pictures, a data set, a recipe and packages that the commands read; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((200, 30, 30), (20, 10, 60, 50))
    picture.save(folder / "photo.png")
    picture.convert("L").save(folder / "hint.png")

    data = folder / "data"
    data.mkdir(exist_ok=True)
    lines = []
    for i in range(3):
        picture.rotate(90 * i).save(data / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a red square, number {i}"}))
    (data / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    write_packages(folder / "packages")
    return folder


def commands(models: Path, inputs: Path) -> dict[str, Command]:
    """Name → command, for every command there is, some in several forms."""
    base, photo = ("--base", str(models / "base")), str(inputs / "photo.png")
    canny, quick = str(models / "canny"), ("--steps", "1")
    control = ("--control", f"{canny}:{photo}")
    data, packages = str(inputs / "data"), ("--packages", str(inputs / "packages"))
    few = ("--count", "2", "--workers", "1")
    icons = ("--source", "noto", "--size", "32", "--workers", "1")
    move = ("--from", base[1], "--to", base[1])

    by_name = {name: Command((name,)) for name in ("annotators", "reproduce")}
    by_name["info"] = Command(("info", canny))
    by_name["info of an embedded one"] = Command(("info", "playroom-canny"))

    words = ("generate", "a cat", *base, *quick, *control)
    by_name["generate"] = Command((*words, *OUT), "file", ".png")
    by_name["generate several"] = Command((*words, "--count", "2", *OUT), "into")

    sheet = ("--vary", "control-scale=0,1", "--vary", "steps=1,2")
    by_name["generate a sheet"] = Command((*words, *sheet, *OUT), "file", ".png")

    by_name["upscale"] = Command(
        ("upscale", photo, *base, *quick, "--factor", "1", "--strength", "1", *OUT), "file", ".png"
    )

    given = ("--image", photo, "--expand", "left=8", "--strength", "1")
    words = ("generate", "a cat", *base, *quick, *given)
    by_name["generate from a picture"] = Command((*words, *OUT), "file", ".png")

    by_name["annotate a picture"] = Command(("annotate", "canny", photo, *OUT), "file", ".png")
    words = ("annotate", "canny", data, "--workers", "1")
    by_name["annotate a folder"] = Command((*words, *OUT), "into")

    words = (str(recipe(models, inputs)), "--set")
    by_name["train"] = Command(("train", *words, "out={out}"), "into")
    by_name["cache"] = Command(("cache", *words, "data.cache={out}"), "into")

    words = ("evaluate", canny, *base, "--limit", "2", *quick)
    by_name["evaluate"] = Command((*words, "--json", "{out}"), "file", ".json")
    by_name["evaluate to a page"] = Command((*words, "--html", "{out}"), "file", ".html")

    words = ("convert", canny, "{out}")
    by_name["convert to diffusers"] = Command(words, "folder")
    by_name["convert to original"] = Command((*words, "--to", "original"), "file", ".safetensors")
    by_name["transfer"] = Command(("transfer", canny, *move, *OUT), "folder")
    words = ("push", canny, "somebody/canny", "--no-upload", *OUT)
    by_name["push"] = Command(words, "folder")
    by_name["demo"] = Command(("demo", *OUT, *quick, "--seeds", "1"), "folder")

    # they run until they are stopped
    for name in ("studio", "serve"):
        by_name[name] = Command((name, "--base", str(models / "no such")), code=2)

    room = "playroom"
    by_name["playroom render"] = Command((room, "render", "{out}", "--size", "64", *few), "into")
    by_name["playroom fill50k"] = Command((room, "fill50k", "{out}", "--size", "32", *few), "into")
    by_name["playroom stickers"] = Command((room, "stickers", "{out}", *packages, *icons), "into")
    # it trains for hours; there is nothing to export yet
    words = (room, "train-base", "{out}", "--stickers", data, "--stage", "export")
    by_name["playroom train-base"] = Command(words, "into", code=2)
    return by_name


def recipe(models: Path, inputs: Path) -> Path:
    data = str(inputs / "data")
    values = {
        "base": str(models / "base"),
        "out": str(inputs / "run"),
        "device": "cpu",
        "control": {"hint_widths": [4, 8, 8, 16]},
        "data": {"train": data, "validation": data, "condition": "canny", "size": 64, "workers": 1},
        "training": {"steps": 1, "batch_size": 2, "validate_every": 0, "sample_count": 0},
    }
    (inputs / "recipe.yaml").write_text(yaml.safe_dump(values))
    return inputs / "recipe.yaml"


def registered() -> set[str]:
    """The names of all commands, as one types them."""
    names = names_in(app)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        names |= {f"{group.name} {name}" for name in names_in(group.typer_instance)}
    return names


def names_in(group: Typer) -> set[str]:
    """A command without a name of its own has its function's."""
    names = set()
    for command in group.registered_commands:
        assert command.callback is not None
        names.add(command.name or command.callback.__name__)
    return names
