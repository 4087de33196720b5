"""Pictures of the prompts and hints that a recipe names in training.validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from zeroconv.annotators import annotate
from zeroconv.backbones import Backbone
from zeroconv.baselines import Net
from zeroconv.conditions import find, known, open_hint, resize_hint
from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.generation import Control, generate
from zeroconv.generation.sizes import of_area
from zeroconv.pictures import open_picture
from zeroconv.training.execution.precision import autocast
from zeroconv.training.recipes.prompts import ValidationPrompt
from zeroconv.training.recipes.training import TrainingSettings
from zeroconv.training.reporting.samples import grid


@dataclass(frozen=True)
class Prompted:
    """An entry, ready to be made."""

    entry: ValidationPrompt
    hint: Image.Image | None
    size: tuple[int, int]  # width and height of its pictures
    seed: int
    kind: str | None  # what the hint shows


def check_prompts(
    entries: Sequence[ValidationPrompt], condition: str | None, union: bool = False
) -> None:
    """Open every hint, before any work. condition: of the control; None: nothing reads hints.
    union: a hint may be of another kind.

    Raises UserError, with the number of the entry: no hint for a control, one for a LoRA, a file
    that is no picture, a condition that nothing draws.
    """
    for number, entry in enumerate(entries, 1):
        try:
            _check(entry, condition, union)
        except UserError as error:
            raise UserError(f"training.validation, entry {number}: {error}") from error


def _check(entry: ValidationPrompt, condition: str | None, union: bool) -> None:
    if condition is None:
        if entry.hint is not None:
            raise UserError("a LoRA reads no hint; leave hint out.")
        return
    if entry.hint is None:
        raise UserError("a control needs a hint; add hint: PICTURE, or hint: canny:PHOTOGRAPH.")
    if entry.kind is not None and (not union or entry.draw is not None):
        raise UserError("kind is for finished hints of a Union control; leave it out.")
    if entry.draw is None:
        open_hint(entry.hint, entry.kind or condition)
        return
    drawn, ours = find(entry.draw), known(condition)
    if not union and ours is not None and drawn.name != ours.name:
        raise UserError(
            f"it draws {drawn.name}, and the run trains {ours.name}; draw {ours.name}, or give a "
            "finished hint."
        )
    open_picture(entry.hint)


def prepare(
    entries: Sequence[ValidationPrompt], condition: str | None, backbone: Backbone, side: int
) -> list[Prompted]:
    """Hints drawn and brought to size: their own shape at about side² pixels. Raises UserError."""
    ready = []
    for number, entry in enumerate(entries):
        hint, size = None, (side, side)
        if entry.hint is not None:
            shows = entry.kind or condition
            whole = open_hint(entry.hint, shows) if entry.draw is None else None
            source = open_picture(entry.hint) if whole is None else whole
            height, width = of_area(*source.size, backbone, side)
            size = width, height
            hint = _hint(source, size, entry.draw, shows)
        seed = number if entry.seed is None else entry.seed
        kind = entry.draw or entry.kind or condition
        ready.append(Prompted(entry, hint, size, seed, kind))
    return ready


def _hint(
    source: Image.Image, size: tuple[int, int], draw: str | None, condition: str | None
) -> Image.Image:
    """Drawn at the size of the pictures, as lines of a smaller drawing are thinner."""
    if draw is not None:
        return annotate(draw, ImageOps.fit(source, size, method=Image.Resampling.LANCZOS))
    entry = known(condition)
    return resize_hint(source, size, None if entry is None else entry.resize, "crop")


def validation_sheet(
    path: Path | None,
    backbone: Any,
    control: Net | None,
    prompts: Sequence[Prompted],
    settings: TrainingSettings,
) -> None:
    """A PNG with one row an entry: its hint, if it has one, and its pictures.

    The same seeds every time. path None: nothing is written, by a process that holds a part of the
    weights.
    """
    rows = [[*_shown(one), *_made(one, backbone, control, settings)] for one in prompts]
    if path is None:
        return
    blank = Image.new("RGB", (1, 1), "white")
    longest = max(map(len, rows))
    filled = [[*row, *[blank] * (longest - len(row))] for row in rows]
    with atomic_write(path) as temporary:
        grid([list(column) for column in zip(*filled, strict=True)]).save(temporary)


def _shown(one: Prompted) -> list[Image.Image]:
    return [] if one.hint is None else [one.hint.convert("RGB")]


def _made(
    one: Prompted, backbone: Any, control: Net | None, settings: TrainingSettings
) -> list[Image.Image]:
    kind = one.kind if hasattr(control, "of_kind") else None
    controls = [] if control is None else [Control(control, one.hint, kind=kind)]
    with autocast(settings.precision, backbone.device):
        return generate(
            backbone,
            one.entry.prompt,
            controls=controls,
            negative=one.entry.negative,
            cfg=settings.sample_cfg,
            steps=settings.sample_steps,
            seed=one.seed,
            count=one.entry.count,
            width=one.size[0],
            height=one.size[1],
            batch_size=4,
        )
