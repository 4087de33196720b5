"""Every command × every option × wrong values: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from zeroconv.cli import app

INTEGERS = ["many", "", "1.5", "-7", "9" * 30, "1e9", "nan", "²"]
NUMBER = ["much", "", "nan", "inf", "-inf", "1e400", "1e9", "9" * 5000]
NAME = ["", "no such thing", "../..", "\udcff", "x" * 5000]
PATH = ["", "x" * 5000, "/dev/null/x"]
TEXT = ["\udcff", "\ud800", "x" * 200_000]
SETTING = ["", "x", "=", "=1", "steps", "\udcff=1"]
ANY = None  # every value is taken, or nothing that can be tried here
MODEL = [name for name in NAME if name]

SERVER: dict[str, list[str] | None] = {
    "host": [*NAME, "0.0.0.0", "::"],
    "fast": [*NAME, "deep=0", "change=nan"],
    "engine": NAME,
    "base": MODEL,
    "lora": ["x:", "x:nan", "no such thing"],
    "vae": NAME,
    "tiny_vae": NAME,
    "parts": NAME,
    "revision": NAME,
    "variant": NAME,
    "subfolder": NAME,
    "more_base": NAME,
    "control": NAME,
    "lora_dir": PATH,
    "datasets": PATH,
    "data": PATH,
    "token": ["", "short", "two words of it", "\udcff" * 9, "x" * 5000],
    "allow_host": NAME,
    "device": [*NAME, "cuda:99"],
    "dtype": NAME,
}

# options that are texts or paths; numbers are found by themselves
VALUES: dict[str, dict[str, list[str] | None]] = {
    "generate": {
        "prompt": TEXT,
        "control": [*NAME, "=", ":", "a=", "{", "canny=no such.png", "no such=no such.png"],
        "mode": NAME,
        "mask": PATH,
        "region": PATH,
        "passes": NAME,
        "image": PATH,
        "masked_content": NAME,
        "expand": [*NAME, "left", "left=-1", "up=8", "left=" + "9" * 5000],
        "hires_upscaler": NAME,
        "lora_dir": ANY,  # read where a prompt has a tag
        "resize_mode": NAME,
        "image_prompt": [*NAME, "=", "a=", "{", "no such.bin=no such.png"],
        "image_encoder": NAME,
        "image_prompt_region": PATH,
        "reference": [*PATH, "no such.png"],
        "base": MODEL,
        "lora": [*NAME, "x:", "x:nan", ":1", "x=unet:", "x=unet:nan", "x=text:1,head:1"],
        "vae": NAME,
        "tiny_vae": NAME,
        "parts": NAME,
        "revision": NAME,
        "variant": NAME,
        "subfolder": NAME,
        "guidance": NAME,
        "scheduler": NAME,
        "schedule": NAME,
        "noise": NAME,
        "fast": [*NAME, "deep=0", "deep=x", "deep=2,deep=3", "colour=1", "exact=nan"],
        "engine": NAME,
        "vary": [
            *SETTING,
            "steps=",
            "steps=x",
            "steps=0",
            "cfg=nan",
            "steps=1,,2",
            "control-scale=1",
        ],
        "negative": TEXT,
        "prompt_2": [*TEXT, "no second encoder"],
        "negative_2": [*TEXT, "no second encoder"],
        "embedding": [*PATH, "a=", "=", "a=no such.pt", "no such.pt"],
        "out": [*PATH, "x.gif"],
        "again": [*PATH, "no such.png"],
        "device": [*NAME, "cuda:99", "meta", "cpu:x"],
        "dtype": [*NAME, "float64", "float16"],
        "offload": NAME,
        "quantise": [*NAME, "bf16"],
    },
    "upscale": {
        "picture": [*PATH, "no such.png"],
        "prompt": TEXT,
        "control": NAME,
        "fast": [*NAME, "deep=0", "change=nan"],
        "engine": NAME,
        "base": MODEL,
        "lora": [*NAME, "x:", "x:nan"],
        "vae": NAME,
        "tiny_vae": NAME,
        "parts": NAME,
        "revision": NAME,
        "variant": NAME,
        "subfolder": NAME,
        "scheduler": NAME,
        "schedule": NAME,
        "negative": TEXT,
        "out": [*PATH, "x.gif"],
        "device": [*NAME, "cuda:99"],
        "dtype": [*NAME, "float64", "float16"],
    },
    "annotate": {
        "condition": [*NAME, ","],
        "source": ["no such thing", "\udcff", "x" * 5000],
        "out": PATH,
        "param": [*SETTING, "low=nan", "low=1e999", "low=x", "low=" + "9" * 5000],
        "backend": MODEL,
        "pose_json": PATH,  # refused anyway: this is no pose
        "format": ANY,  # of data sets; this is one picture
        "engine": ANY,
        "device": [*NAME, "cuda:99"],
        "dtype": NAME,
    },
    "annotators": {"fetch": NAME, "archive": ANY},
    "train": {
        "recipe": PATH,
        "setting": SETTING,
        "device": [*NAME, "cuda:99"],
        "dtype": NAME,
    },
    "cache": {
        "recipe": PATH,
        "setting": SETTING,
        "part": [*NAME, "0/3", "4/3", "1/0", "a/b", "1/" + "9" * 30],
        "device": [*NAME, "cuda:99"],
    },
    "info": {
        "model": NAME,
        "revision": NAME,
        "variant": NAME,
        "subfolder": NAME,
        "dtype": [*NAME, "float64"],
        "offload": NAME,
        "quantise": NAME,
    },
    "evaluate": {
        "control": MODEL,
        "data": MODEL,
        "base": MODEL,
        "lora": ["x:", "x:nan", "no such thing"],
        "vae": NAME,
        "tiny_vae": NAME,
        "parts": NAME,
        "revision": NAME,
        "variant": NAME,
        "subfolder": NAME,
        "prompts": NAME,
        "guidance": NAME,
        "condition": NAME,
        "fast": [*NAME, "deep=0", "change=nan"],
        "engine": NAME,
        "judge": ANY,  # told after the pictures are made: see the tests of evaluation
        "features": ANY,
        "clip": ANY,
        "json": PATH,
        "page": PATH,
        "device": [*NAME, "cuda:99"],
        "dtype": NAME,
    },
    "convert": {"source": MODEL, "out": PATH, "to": NAME},
    "reproduce": {"figure": ANY},  # hands its words on
    "push": {
        "folder": ["", "no such", "/dev/null"],
        "name": NAME,
        "out": PATH,
        "figures": PATH,
        "licence": ["", "No Licence"],
    },
    "transfer": {"control": MODEL, "new": MODEL, "out": PATH, "old": MODEL, "method": NAME},
    "demo": {
        "out": PATH,
        "base": MODEL,
        "lora": ["x:", "x:nan", "no such thing"],
        "vae": NAME,
        "parts": NAME,
        "revision": NAME,
        "variant": NAME,
        "subfolder": NAME,
        "guidance": ANY,  # told after the models are loaded, as generate does
        "device": [*NAME, "cuda:99"],
        "dtype": NAME,
    },
    "studio": SERVER,
    "serve": SERVER,
    "render": {"out": PATH, "split": NAME, "maps": NAME},
    "stickers": {"out": PATH, "source": NAME, "packages": ANY},
    "fill50k": {"out": PATH},
    "train-base": {"out": ANY, "stickers": PATH, "stage": NAME},
}


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from (((name, inner), one) for inner, one in command.commands.items())
        else:
            yield (name,), command


def kind_of(command: Any, name: str) -> type | None:
    """int, float or bool where the option is one, or a list of them; else None."""
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    parts = {hints[name], *typing.get_args(hints[name])}
    parts |= {inner for part in parts for inner in typing.get_args(part)}
    return next((kind for kind in (bool, int, float) if kind in parts), None)


def parameters() -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for words, command in commands():
        for param in command.params:
            if param.name in inspect.signature(inspect.unwrap(command.callback)).parameters:
                yield words, command, param


CASES = [
    pytest.param(words, param, value, id=f"{'-'.join(words)} {param.name} {value[:20]!a}")
    for words, command, param in parameters()
    for kind in [kind_of(command, param.name)]
    if kind is not bool
    for value in (
        {int: INTEGERS, float: NUMBER}.get(kind)
        or VALUES[words[-1]].get(param.name, ["untabled"])
        or []
    )
]


def test_every_option_is_in_the_table_and_every_number_has_bounds() -> None:
    for words, command, param in parameters():
        kind = kind_of(command, param.name)
        if kind in (int, float):
            assert param.min is not None and param.max is not None, (words, param.name)
        elif kind is None:
            assert param.name in VALUES[words[-1]], (words, param.name)


@pytest.fixture
def sound(models: Path, photo: Path, tmp_path: Path) -> dict[str, dict[str, object]]:
    """Words with which each command would work, by the parameter's name."""
    recipe = {
        "out": str(tmp_path / "run"),
        "base": str(models / "base"),
        "data": {},
        "training": {},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    few = {"base": models / "base", "steps": 1}
    server = {"base": models / "base", "port": 0, "data": tmp_path / "data"}
    return {
        "generate": {**few, "prompt": "a", "out": tmp_path / "out.png"},
        "upscale": {**few, "picture": photo, "factor": 1, "out": tmp_path / "out.png"},
        "annotate": {"condition": "canny", "source": photo, "out": tmp_path / "hint.png"},
        "train": {"recipe": tmp_path / "recipe.yaml"},
        "cache": {"recipe": tmp_path / "recipe.yaml"},
        "evaluate": {**few, "control": models / "canny", "limit": 2, "limit_none": 0},
        "convert": {"source": models / "canny", "out": tmp_path / "out"},
        "transfer": {
            "control": models / "canny",
            "new": models / "base",
            "old": models / "base",
            "out": tmp_path / "out",
        },
        "push": {"folder": models / "canny", "name": "a/b", "out": tmp_path / "out"},
        "demo": {**few, "out": tmp_path / "demo"},
        "studio": server,
        "serve": server,
        "render": {"out": tmp_path / "out", "count": 1},
        "stickers": {"out": tmp_path / "out", "packages": tmp_path},
        "fill50k": {"out": tmp_path / "out", "count": 1},
        "train-base": {"out": tmp_path / "out", "stickers": tmp_path},
    }


@pytest.fixture
def refused(zeroconv, sound, tmp_path, monkeypatch):
    """Run a command with one wrong value."""
    monkeypatch.chdir(tmp_path)

    def run(words: tuple[str, ...], param: Any, value: str) -> None:
        command = dict(commands())[words]
        given = {**sound.get(words[-1], {}), param.name: value}
        line: list[object] = list(words)
        for known in command.params:
            if known.name not in given:
                continue
            option = [one for one in known.opts if one.startswith("-")]
            line += [f"{option[0]}={given[known.name]}"] if option else []
        arguments = [p for p in command.params if not p.opts[0].startswith("-") and p.name in given]
        line += ["--", *(given[argument.name] for argument in arguments)]

        before = sorted(tmp_path.rglob("*"))
        result = zeroconv(*line)
        assert result.exit_code == 2, (line, result.exit_code, result.output, result.exception)
        lines = [one for one in result.stderr.splitlines() if not one.startswith("note: ")]
        assert len(lines) == 1 and lines[0].startswith("zeroconv: "), result.stderr
        assert len(lines[0]) < 3000 and lines[0].isprintable(), result.stderr
        assert result.stdout == ""
        assert sorted(tmp_path.rglob("*")) == before

    return run


NUMBERS = [case for case in CASES if case.values[1].min is not None]
OTHERS = [case for case in CASES if case not in NUMBERS]


@pytest.mark.parametrize(("words", "param", "value"), NUMBERS)
def test_a_wrong_number_is_refused_in_one_line(refused, words, param, value) -> None:
    refused(words, param, value)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "param", "value"), OTHERS)
def test_a_wrong_word_is_refused_in_one_line(refused, words, param, value) -> None:
    refused(words, param, value)
