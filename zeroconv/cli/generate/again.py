"""`zeroconv generate --from PICTURE`: what the picture says of its making becomes the defaults of
the options, so that those that are given change it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from zeroconv.cli.generate.adapters import AdapterSpec, changed_adapters, parse_adapters
from zeroconv.cli.generate.again_words import (
    FREE,
    GIVEN,
    OF_ADAPTERS,
    OF_CONTROLS,
    Again,
    read_again,
)
from zeroconv.cli.generate.controls import ControlSpec, checked_spec, one_each, parse_controls
from zeroconv.cli.generate.making import Making
from zeroconv.errors import UserError
from zeroconv.pictures import resize_mode

KEY = "zeroconv.again"


def take(ctx: typer.Context, path: Path | None) -> Path | None:
    """The callback of `--from`, before other options are read. Raises UserError."""
    if path is None or ctx.resilient_parsing:
        return path
    path = path.expanduser()
    again = read_again(path)
    parameters = {p.name: p for p in ctx.command.params}
    unknown = [name for name in again.values if name not in parameters]
    if unknown:
        again.notes.append(f"there is no option for its {', '.join(sorted(unknown)[:20])}")
    known = {k: v for k, v in again.values.items() if k in parameters and k not in FREE[:4]}
    ctx.default_map = {**(ctx.default_map or {}), **known}
    ctx.meta[KEY] = again
    return path


def taken(ctx: typer.Context) -> Again | None:
    """What `take` read, the notes on it printed but for those on options that are given."""
    again = ctx.meta.get(KEY)
    if again is None:
        return None
    given = given_options(ctx)
    for sentence in again.notes:
        option = re.search(r"--([a-z_]+)", sentence)
        if option is None or option[1] not in given:
            warnings.warn(f"{again.path}: {sentence}.", stacklevel=2)
    changed = given - set(FREE)
    if changed and again.values.get("noise") != "batch":
        again.batch = None
    if given & {"prompt", "seed", "height", "width", "noise", "count", "base"}:
        again.batch = None
    return again


def kept_sides(
    ctx: typer.Context, height: int | None, width: int | None
) -> tuple[int | None, int | None]:
    """Height and width, without those of the picture of `--from` where a picture to start from or
    pixels beside it are given: they have another shape.
    """
    given = given_options(ctx)
    if KEY not in ctx.meta or not given & {"image", "expand"} or given & {"height", "width"}:
        return height, width
    return None, None


def given_options(ctx: typer.Context) -> set[str]:
    """The names of the parameters that stand on the command line."""
    names = [str(p.name) for p in ctx.command.params]
    sources = {name: ctx.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def options_of(ctx: typer.Context) -> dict[str, Any]:
    """The options of a call as a picture keeps them, but for files and what changes nothing."""
    left_out = {*OF_CONTROLS, *OF_ADAPTERS, *GIVEN, *FREE}
    return {k: _plain(v) for k, v in ctx.params.items() if k not in left_out and v is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def prompts_of(prompts: Sequence[str] | None) -> list[str]:
    """The prompts; UserError where there is none."""
    if not prompts:
        raise UserError("a prompt is missing: give one, or --from PICTURE. See: generate --help")
    return list(prompts)


def making_of(ctx: typer.Context) -> Making:
    """What the pictures are to keep, and how one is made again; prints the notes on its words."""
    again = taken(ctx)
    making = Making(options_of(ctx))
    if again is not None:
        making.batch, making.inputs = again.batch, [again.path]
        making.pictures = {name: picture for name, (_, picture) in again.given.items()}
        making.image, making.mask = (again.given.get(name, (None,))[0] for name in GIVEN)
    return making


def control_specs(
    ctx: typer.Context,
    texts: Sequence[str] | None,
    scales: Sequence[float],
    starts: Sequence[float],
    ends: Sequence[float],
    modes: Sequence[str],
    masks: Sequence[Path],
    resizes: Sequence[str],
    passes: Sequence[str] = (),
    image: Any = None,
) -> list[ControlSpec]:
    """The controls of the command line, else the picture's own with what is given changed."""
    again = ctx.meta.get(KEY)
    if again is None or texts:
        given = (scales, starts, ends, modes, masks, resizes, passes)
        return parse_controls(texts or [], *given, image=image)  # type: ignore[arg-type]
    columns: dict[str, Sequence[Any]] = {
        "scale": scales,
        "start": starts,
        "end": ends,
        "mode": modes,
        "mask": masks,
    }
    columns |= {"resize": [resize_mode(r) for r in resizes], "passes": passes}
    return changed_specs(again.specs, columns)


def adapter_specs(
    ctx: typer.Context,
    prompts: Sequence[str] | None,
    references: Sequence[Path] | None,
    encoder: str | None = None,
    **columns: Sequence[Any] | None,
) -> list[AdapterSpec]:
    """The image prompts and references of the command line, else the picture's own with what is
    given changed; as `parse_adapters`.
    """
    again = ctx.meta.get(KEY)
    kept = [] if again is None else again.adapters
    kept_prompts = [] if prompts else [spec for spec in kept if spec.adapter is not None]
    kept_references = [] if references else [spec for spec in kept if spec.adapter is None]
    of_prompts = {k: v for k, v in columns.items() if k.startswith("image_prompt_")}
    of_references = {k: v for k, v in columns.items() if k.startswith("reference_")}
    if kept_prompts:
        kept_prompts = changed_adapters(kept_prompts, "image_prompt", of_prompts, encoder)
        encoder, of_prompts = None, {}
    if kept_references:
        kept_references = changed_adapters(kept_references, "reference", of_references, None)
        of_references = {}
    given = parse_adapters(prompts, references, encoder, **of_prompts, **of_references)
    new = [spec for spec in given if spec.adapter is not None], given[len(prompts or ()) :]
    return [*kept_prompts, *new[0], *kept_references, *new[1]]


def changed_specs(
    specs: Sequence[ControlSpec], columns: Mapping[str, Sequence[Any]]
) -> list[ControlSpec]:
    """The picture's own controls with the options of controls that are given. columns: field of
    `ControlSpec` → values, once for all or once for each. Raises UserError.
    """
    options = {"resize": "--resize-mode", "mask": "--region"}
    changed = list(specs)
    for name, values in columns.items():
        if not values:
            continue
        option = options.get(name, f"--{name}")
        each = one_each(option, values, len(changed), None)
        more: dict[str, Any] = {"kept_mask": None} if name == "mask" else {}
        changed = [
            checked_spec(replace(spec, **{name: value}, **more))
            for spec, value in zip(changed, each, strict=True)
        ]
    return changed
