"""The words of `--control` and beside it: which networks, which pictures, how strongly."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroconv.errors import UserError
from zeroconv.pictures import resize_mode
from zeroconv.renamed import OPTIONS, note
from zeroconv.words import cut, exists, expand

if TYPE_CHECKING:
    from PIL import Image

    from zeroconv.baselines import Net

STRONGEST = 100.0  # of a scale, either sign; pictures are noise long before


@dataclass(frozen=True)
class ControlSpec:
    """One `--control`: which network, which picture, and whether the hint is drawn from it
    first.
    """

    name: str
    picture: Path
    draw: bool
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: str | None = None
    mask: Path | None = None
    resize: str | None = None  # None: a finished hint is stretched, a photograph cropped
    kept: Image.Image | None = None  # the opened hint, where a picture brings it (--from)
    kept_mask: Image.Image | None = None
    passes: str = "both"
    of_image: bool = False  # of the picture to start from, `--control NAME`


def parse_controls(
    texts: Sequence[str],
    scales: Sequence[float],
    starts: Sequence[float],
    ends: Sequence[float],
    modes: Sequence[str] = (),
    masks: Sequence[Path] = (),
    resizes: Sequence[str] = (),
    passes: Sequence[str] = (),
    image: str | Path | None = None,
) -> list[ControlSpec]:
    """Read every control; what belongs to one comes once for all of them, or once for each.

    image: what the hint of a control is drawn from that is given by its name alone.
    """
    for name in passes:
        _check_passes(name)
    columns = [
        one_each("--scale", scales, len(texts), 1.0),
        one_each("--start", starts, len(texts), 0.0),
        one_each("--end", ends, len(texts), 1.0),
        one_each("--mode", modes, len(texts), None),
        one_each("--region", masks, len(texts), None),
        one_each("--resize-mode", [resize_mode(name) for name in resizes], len(texts), None),
        one_each("--passes", passes, len(texts), "both"),
    ]
    specs = []
    for text, scale, start, end, mode, mask, resize, acts in zip(texts, *columns, strict=True):
        bare = image is not None and is_known_control(expand(text))
        name, picture, draw = (expand(text), str(image), True) if bare else parse_control(text)
        spec = ControlSpec(name, Path(picture), draw, scale, start, end, mode, mask, resize)
        spec = replace(spec, passes=acts, of_image=bare)
        specs.append(checked_spec(spec))
    return specs


def checked_spec(spec: ControlSpec) -> ControlSpec:
    """The spec itself. Raises UserError for a strength or a window out of range."""
    _check_numbers(spec.scale, spec.start, spec.end)
    return spec


def parse_control(text: str) -> tuple[str, str, bool]:
    """One control → its name, its picture, and whether the hint is drawn from the picture first.

    `NAME=PICTURE` takes the picture as the hint, `NAME:PICTURE` draws it. Where names or paths hold
    such signs themselves, what exists decides; of several ways the longest existing name wins, and
    a note says so. `{"name": NAME, "hint": PICTURE}` and `{"name": NAME, "draw": PICTURE}`, JSON,
    say it without any guess. Raises UserError for anything else.
    """
    if text.lstrip().startswith("{"):
        return _from_json(text)
    split = cut(text, "=:", is_known_control, is_picture)
    if split is None:
        raise UserError(
            f"--control {text!r} is not understood: write NAME=PICTURE for a finished hint, "
            "NAME:PICTURE to draw the hint from a photograph, or NAME to draw it from --image"
        )
    if split.rivals:
        key = "draw" if split.sign == ":" else "hint"
        sure = json.dumps({"name": split.left, key: split.right}, ensure_ascii=False)
        warnings.warn(
            f"--control {text!r} can be read in {1 + len(split.rivals)} ways; it is taken as "
            f"{sure}, not as {split.rivals[-1]!r}. Written as such an object it has one meaning.",
            stacklevel=2,
        )
    return expand(split.left), expand(split.right), split.sign == ":"


def _from_json(text: str) -> tuple[str, str, bool]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    keys = set(fields) if isinstance(fields, dict) else set()
    well = keys in ({"name", "hint"}, {"name", "draw"})
    if not well or not all(isinstance(value, str) and value for value in fields.values()):
        raise UserError(
            f"--control {text!r} is not understood: as JSON it has the texts name and hint, or "
            "name "
            'and draw, such as {"name": "canny", "hint": "edges.png"}'
        )
    draw = "draw" in keys
    return expand(fields["name"]), expand(fields["draw" if draw else "hint"]), draw


def is_known_control(name: str) -> bool:
    """Whether a control of that name is there: embedded, a condition's, or a file or folder."""
    from zeroconv.backbones.loading.locate import ASSETS
    from zeroconv.control.naming import split_kind

    if known_condition(name) is not None or exists(name):
        return True
    if split_kind(name)[1] is not None:
        return True
    return name.startswith("playroom-") and name.isprintable() and exists(str(ASSETS / name))


def is_picture(path: str) -> bool:
    """Whether a word names a file."""
    try:
        return Path(expand(path)).is_file()
    except (OSError, ValueError):
        return False


def renamed_option(old: str, old_values: list | None, values: list | None) -> list:
    """What was given under either name of an option; a note where it is the old one."""
    new = OPTIONS[old]
    if old_values and values:
        raise UserError(f"{old} and {new} are one option; give {new}")
    if old_values:
        note(old, new)
    return old_values or values or []


def _check_passes(name: str) -> None:
    if name not in ("both", "low", "high"):
        raise UserError(f"--passes {name[:40]!r} is none: choose both, low or high")


def _check_numbers(scale: float, start: float, end: float) -> None:
    if not math.isfinite(scale) or abs(scale) > STRONGEST:
        raise UserError(
            f"--scale {scale} is no strength: give a number from -{STRONGEST:g} to "
            f"{STRONGEST:g}, 1 for the control as it was trained"
        )
    for option, value in (("--start", start), ("--end", end)):
        if not 0 <= value <= 1:
            raise UserError(f"{option} {value} is no share of the steps: give a number from 0 to 1")
    if not start < end:
        raise UserError(f"--start {start} is not before --end {end}: the control would never act")


def one_each(
    option: str, values: Sequence[Any], count: int, default: Any, what: str = "controls"
) -> list[Any]:
    """One value a control, of an option given once for all of them or once for each."""
    if not values:
        return [default] * count
    if not count:
        raise UserError(
            f"{option} belongs to a control, and none is given: add --control NAME=PICTURE"
        )
    if len(values) == 1:
        return list(values) * count
    if len(values) != count:
        raise UserError(
            f"{option} is given {len(values)} times for {count} {what}: give it once, or once for "
            "each"
        )
    return list(values)


def known_condition(name: str) -> str | None:
    """The registry's own name of a condition or alias, or None."""
    from zeroconv.conditions import known

    condition = known(name)
    return None if condition is None else condition.name


def load_control(name: str, base: str, backbone: Any) -> Net:
    """Load the control, or the baseline, that a user names; see `zeroconv.control.naming`. Of
    `NAME:KIND` it is the Union control for hints of that kind.
    """
    from zeroconv.baselines import load_net
    from zeroconv.control.naming import control_name, split_kind
    from zeroconv.generation.joining import bind_kind

    net, kind = split_kind(name)
    return bind_kind(load_net(control_name(net, base), backbone), kind)


def named_condition(net: Net) -> str | None:
    """The condition that a control's own config names."""
    return (net.config.get("zeroconv") or {}).get("condition")


def condition_of(spec: ControlSpec, net: Net) -> str:
    """The condition a control was trained for, by its config, else by the name it was given.

    A preprocessor's name (`openpose_full`) stays, where it draws that condition: it says more.
    """
    condition = known_condition(named_condition(net) or spec.name)
    if condition is None:
        raise UserError(
            f"the control {spec.name} does not say what its hints show, so none can be drawn: draw "
            f"one with `zeroconv annotate CONDITION {spec.picture} --out hint.png`, then give "
            f"--control {spec.name}=hint.png"
        )
    return spec.name if known_condition(spec.name) == condition else condition
