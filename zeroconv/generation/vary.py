"""A sheet of pictures that differ in a few settings: every combination of the values, labelled."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from zeroconv.backbones import Backbone
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation import guidance as guidance_rules
from zeroconv.generation.control import Control
from zeroconv.generation.pipeline import generate
from zeroconv.generation.samplers.stepping import check_sampling, scheduler_for
from zeroconv.words import assignment
from zeroconv.words import number as number_of

# setting → how one of its values is read; those of controls change all of them
INTEGER, NUMBER, NAME = "whole", "number", "name"
SETTINGS = {
    "steps": INTEGER,
    "seed": INTEGER,
    "cfg": NUMBER,
    "eta": NUMBER,
    "guidance-rescale": NUMBER,
    "scheduler": NAME,
    "schedule": NAME,
    "guidance": NAME,
    "noise": NAME,
    "control-scale": NUMBER,
    "control-start": NUMBER,
    "control-end": NUMBER,
}
MANY = 100  # pictures; more are made, with a note
MOST = 10_000
LARGEST = 8192  # pixels a side of a sheet; larger ones are shrunk, with a note
GAP, TITLE, MARGIN = 6, 24, 12


@dataclass(frozen=True)
class Axis:
    """A setting and the values that it takes, in order."""

    name: str
    values: tuple[Any, ...]


def parse_axis(text: str) -> Axis:
    """`steps=10,20` → an axis. Raises UserError."""
    parts = assignment(text)
    if parts is None:
        raise UserError(f"--vary {text!r} is not understood; write NAME=VALUE,VALUE: steps=10,20.")
    name, values = parts[0].replace("_", "-"), parts[1]
    if name not in SETTINGS:
        raise UserError(f"--vary knows no {name!r}; known: {', '.join(SETTINGS)}.")
    return Axis(name, tuple(_value(name, one.strip()) for one in values.split(",")))


def _value(name: str, text: str) -> Any:
    if SETTINGS[name] == NAME:
        if not text:
            raise UserError(f"--vary {name} has an empty value; leave the comma out.")
        return text
    value = number_of(text)
    if value is None or (SETTINGS[name] == INTEGER and value != int(value)):
        kind = "whole number" if SETTINGS[name] == INTEGER else "number"
        raise UserError(f"--vary {name} has the value {text!r}, which is no {kind}.")
    return int(value) if SETTINGS[name] == INTEGER else float(value)


def combinations(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination, the last axis first to change. Raises UserError for a setting that comes
    twice, and for too many; a note for more than `MANY`.
    """
    names = [axis.name for axis in axes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"--vary {twice} is given twice; give all its values at once.")
    made = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]
    if len(made) > MOST:
        raise UserError(f"--vary asks for {len(made)} pictures; give {MOST} at most.")
    if len(made) > MANY:
        warnings.warn(
            f"--vary makes {len(made)} pictures, one after the other; fewer values take less time.",
            stacklevel=2,
        )
    return made


def check_combinations(
    combos: Sequence[Mapping[str, Any]], request: Mapping[str, Any], controls: int
) -> None:
    """Raise UserError where one combination cannot be, before the first is drawn."""
    for combo in combos:
        settings = {**request, **{key.replace("-", "_"): value for key, value in combo.items()}}
        check_sampling(
            settings.get("scheduler", "unipc"),
            settings.get("schedule"),
            settings.get("eta"),
            settings.get("guidance_rescale", 0.0),
            settings.get("noise", "cpu"),
        )
        arguments.integer(
            "steps", settings.get("steps", 20), 1, arguments.MOST_STEPS, "of sampling"
        )
        if "seed" in combo:
            arguments.integer("seed", combo["seed"], 0, 2**53, "as --seed")
        if "cfg" in combo:
            strongest = arguments.STRONGEST
            arguments.number("cfg", combo["cfg"], -strongest, strongest, "the guidance scale")
        if "guidance" in combo:
            guidance_rules.check_mode(combo["guidance"])
        if not controls and any(name.startswith("control-") for name in combo):
            raise UserError("--vary of a control's setting needs a --control.")
        _controls([Control(None, None)], combo)  # type: ignore[arg-type]


def _check_made(
    backbone: Backbone,
    controls: Sequence[Control],
    combo: Mapping[str, Any],
    request: Mapping[str, Any],
) -> None:
    """Raise UserError for a combination that this base or these controls cannot have."""
    arguments.check_controls(_controls(controls, combo))
    settings = {**request, **combo}
    names = {name: settings[name] for name in ("schedule", "eta", "noise") if name in settings}
    scheduler_for(settings.get("scheduler"), backbone, settings.get("steps", 20), **names)


def _controls(controls: Sequence[Control], combo: Mapping[str, Any]) -> list[Control]:
    changes = {
        key.removeprefix("control-"): value
        for key, value in combo.items()
        if key.startswith("control-")
    }
    for key, value in changes.items():
        least, most = (-arguments.STRONGEST, arguments.STRONGEST) if key == "scale" else (0.0, 1.0)
        arguments.number(f"control-{key}", value, least, most, "of every control")
    return [replace(control, **changes) for control in controls]


def vary(
    backbone: Backbone,
    prompt: str,
    controls: Sequence[Control],
    axes: Sequence[Axis],
    finished: Callable[[int, int, Image.Image], None] = lambda done, total, picture: None,
    **request: Any,
) -> Image.Image:
    """The sheet: the first axis along the top, the second down the side, one block for each
    combination of the others. `request`: further arguments of `generate`, of one picture.

    finished(done, total, picture) is called after every picture. Raises UserError.
    """
    if not axes:
        raise UserError("--vary needs a setting and its values, such as steps=10,20.")
    combos = combinations(axes)
    check_combinations(combos, request, len(controls))
    for combo in combos:
        _check_made(backbone, controls, combo, request)
    pictures = []
    for done, combo in enumerate(combos, start=1):
        changed = {k.replace("-", "_"): v for k, v in combo.items() if not k.startswith("control-")}
        (picture,) = generate(
            backbone, prompt, _controls(controls, combo), **{**request, **changed}
        )
        pictures.append(picture)
        finished(done, len(combos), picture)
    return draw_sheet(axes, pictures)


def draw_sheet(axes: Sequence[Axis], pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in the order of `combinations` → one labelled picture."""
    columns, rest = axes[0], list(axes[1:])
    rows, blocks = (rest[0] if rest else None), rest[1:]
    font = ImageFont.load_default(13)
    left = MARGIN + (max(int(font.getlength(one)) for one in _labels(rows)) + GAP if rows else 0)
    wide, high = max(p.width for p in pictures), max(p.height for p in pictures)
    labels = [_labels(columns), _labels(rows)]
    wide_cell = max(wide, *(int(font.getlength(one)) + GAP for one in labels[0]))
    titles = [", ".join(one) for one in itertools.product(*map(_labels, blocks))]
    block = TITLE * (2 if blocks else 1) + len(labels[1]) * (high + GAP)
    size = (
        left + len(labels[0]) * (wide_cell + GAP) + MARGIN,
        2 * MARGIN + len(titles) * block,
    )
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        column, at = divmod(i, len(labels[1]) * len(titles))
        row, number = divmod(at, len(titles))
        top = MARGIN + number * block + (TITLE if blocks else 0)
        x, y = left + column * (wide_cell + GAP), top + TITLE + row * (high + GAP)
        sheet.paste(picture.convert("RGB"), (x, y))
        if row == 0:
            pen.text((x, top + 4), labels[0][column], fill="black", font=font)
        if column == 0:
            pen.text((MARGIN, y + high // 2 - 8), labels[1][row], fill="black", font=font)
        if i < len(titles) and blocks:
            pen.text((MARGIN, top - TITLE + 4), titles[number], fill="black", font=font)
    return _fitted(sheet)


def _labels(axis: Axis | None) -> list[str]:
    """ "steps 10": numbers without a needless zero."""
    if axis is None:
        return [""]
    values = [f"{v:g}" if isinstance(v, float) else str(v) for v in axis.values]
    return [f"{axis.name} {value}" for value in values]


def _fitted(sheet: Image.Image) -> Image.Image:
    factor = LARGEST / max(sheet.size)
    if factor >= 1:
        return sheet
    warnings.warn(
        f"the sheet of {sheet.width}×{sheet.height} pixels was shrunk to {LARGEST} a side; vary "
        "fewer values to see pictures as they are.",
        stacklevel=4,
    )
    sides = (max(1, round(side * factor)) for side in sheet.size)
    return sheet.resize(tuple(sides), Image.Resampling.LANCZOS)  # type: ignore[arg-type]
