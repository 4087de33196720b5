"""What `zeroconv generate` does with its words: find the models, prepare the hints, make and save the pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from zeroconv.cli.progress import progress
from zeroconv.errors import UserError
from zeroconv.pictures import Loaded, Source, load, open_picture

if TYPE_CHECKING:
    from zeroconv.rivals import Net


@dataclass(frozen=True)
class ControlSpec:
    """One `--control`: which network, which picture, and whether the hint is drawn from that picture first."""

    name: str
    picture: Path
    draw: bool
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: str | None = None
    mask: Path | None = None


def parse_controls(
    texts: Sequence[str],
    weights: Sequence[float],
    starts: Sequence[float],
    ends: Sequence[float],
    modes: Sequence[str] = (),
    masks: Sequence[Path] = (),
) -> list[ControlSpec]:
    """Read `NAME=PICTURE` and `NAME:PICTURE`; what belongs to a control comes once for all or once for each."""
    columns = [
        _one_each("--weight", weights, len(texts), 1.0),
        _one_each("--start", starts, len(texts), 0.0),
        _one_each("--end", ends, len(texts), 1.0),
        _one_each("--mode", modes, len(texts), None),
        _one_each("--mask", masks, len(texts), None),
    ]
    specs = []
    for text, weight, start, end, mode, mask in zip(texts, *columns, strict=True):
        cut = min((i for i in (text.find("="), text.find(":")) if i > 0), default=-1)
        name, picture = text[:cut].strip(), text[cut + 1 :].strip()
        if cut < 0 or not name or not picture:
            raise UserError(
                f"--control {text!r} is not understood: write NAME=PICTURE for a finished hint, "
                "or NAME:PICTURE to draw the hint from a photograph"
            )
        if not math.isfinite(weight):
            raise UserError(
                f"--weight {weight} is no strength: give a finite number, 1 for the control as it was trained"
            )
        specs.append(ControlSpec(name, Path(picture), text[cut] == ":", weight, start, end, mode, mask))
    return specs


def _one_each(option: str, values: Sequence[Any], count: int, default: Any) -> list[Any]:
    if not values:
        return [default] * count
    if len(values) == 1:
        return list(values) * count
    if len(values) != count:
        raise UserError(f"{option} is given {len(values)} times for {count} controls: give it once, or once for each")
    return list(values)


def pick_device(name: str) -> str:
    """`auto` → the first accelerator there is, else the CPU."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"this machine has no device {name!r}: leave --device out to take what is there") from error
    return name


def control_name(name: str, base: str) -> str:
    """What `ControlNet.load` knows it by: a bare condition means the control embedded beside the playroom base."""
    known = known_condition(name)
    if known and is_playroom(base) and not Path(name).exists():
        return f"playroom-{known}"
    if known and not Path(name).exists():
        raise UserError(
            f"only the playroom bases bring a control named {name!r}: "
            f"for --base {base} say which one, as a folder, a file, or a hub id"
        )
    return name


def is_playroom(base: str) -> bool:
    """Whether `base` is the embedded playroom or a model made of it: the embedded controls go with all of them."""
    from zeroconv.backbones.locate import ASSETS
    from zeroconv.checkpoints.lora import BASE

    marks = ("model_index.json", BASE)
    return base.startswith("playroom") and any((ASSETS / base / mark).is_file() for mark in marks)


def known_condition(name: str) -> str | None:
    """The registry's own name of a condition or alias, or None."""
    from zeroconv.conditions import find

    try:
        return find(name).name
    except UserError:
        return None


def load_control(name: str, base: str, backbone: Any) -> Net:
    """Load the control, or the rival of one, that a user names, for `backbone`; see `control_name`."""
    from zeroconv.rivals import load_net

    return load_net(control_name(name, base), backbone)


def named_condition(net: Net) -> str | None:
    """The condition that a control's own config names."""
    return (net.config.get("zeroconv") or {}).get("condition")


def condition_of(spec: ControlSpec, net: Net) -> str:
    """The condition a control was trained for, from its config, else from the name the user gave it."""
    condition = known_condition(named_condition(net) or spec.name)
    if condition is None:
        raise UserError(
            f"the control {spec.name} does not say what its hints show, so none can be drawn: draw one with "
            f"`zeroconv annotate CONDITION {spec.picture} --out hint.png`, then give --control {spec.name}=hint.png"
        )
    return condition


def check_request(request: dict[str, Any]) -> None:
    """Raise UserError for what can be seen without a model; `generate` checks everything again, and the rest."""
    if not 1 <= request["steps"] <= 1000:
        raise UserError(f"--steps {request['steps']} is out of range: give 1 to 1000, usually 20")
    if request["count"] < 1:
        raise UserError(f"--count {request['count']} asks for no picture: give 1 or more")
    for name in ("height", "width"):
        if request[name] is not None and not 8 <= request[name] <= 8192:
            raise UserError(f"--{name} {request[name]} is out of range: give 8 to 8192 pixels")


def picture_size(backbone: Any, pictures: Sequence[Loaded], request: dict[str, Any]) -> tuple[int, int]:
    """Width and height as `generate` chooses them: what is asked for, else the first picture's shape."""
    from zeroconv.generation.pipeline import shape_like

    square = (backbone.default_size, backbone.default_size)
    height, width = shape_like(pictures[0], backbone) if pictures else square
    return request["width"] or width, request["height"] or height


def draw_hint(condition: str, picture: Source, size: tuple[int, int]) -> Image.Image:
    """Draw a hint at the size of the pictures to come: crop to their shape, shrink, then annotate.

    Drawing first and shrinking afterwards would thin out lines that the control never saw that thin.
    """
    from zeroconv.annotators import draw
    from zeroconv.conditions import brings_hole, open_hint

    if brings_hole(picture, condition):
        return ImageOps.fit(open_hint(picture, condition), size, method=Image.Resampling.NEAREST)
    return draw(condition, ImageOps.fit(open_picture(picture), size, method=Image.Resampling.LANCZOS))


def run(
    prompts: list[str],
    specs: list[ControlSpec],
    base: str,
    out: Path,
    device: str,
    request: dict[str, Any],
    lora: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the pictures of one `zeroconv generate` and save them; returns what `--json` prints."""
    check_request(request)  # before the slow part: bad input is told at once
    output_paths(out, len(prompts) * request["count"])
    pictures = [load(spec.picture) for spec in specs]
    masks = [None if spec.mask is None else load(spec.mask) for spec in specs]

    from zeroconv.backbones import load_backbone
    from zeroconv.conditions import open_hint
    from zeroconv.generation import Control, generate
    from zeroconv.generation.metadata import save_picture

    began = time.perf_counter()
    backbone = load_backbone(base, device=pick_device(device), lora=lora)
    size = picture_size(backbone, pictures, request)
    controls, told, hints = [], [], []
    for spec, picture, mask in zip(specs, pictures, masks, strict=True):
        net = load_control(spec.name, base, backbone)
        if spec.draw:
            hint = draw_hint(condition_of(spec, net), picture, size)
        else:
            hint = open_hint(picture, known_condition(named_condition(net) or spec.name))
        hints.append(hint)
        window: dict[str, Any] = {"weight": spec.weight, "start": spec.start, "end": spec.end}
        controls.append(Control(net.to(backbone.device), hint, **window, mode=spec.mode, mask=mask))
        told.append(
            {
                "name": spec.name,
                "picture": str(spec.picture),
                "drawn": spec.draw,
                **window,
                "mode": spec.mode,
                "mask": None if spec.mask is None else str(spec.mask),
            }
        )
    loaded = time.perf_counter()
    with progress("denoising") as callback:
        images = generate(backbone, prompts, controls, callback=callback, **request)
    done = time.perf_counter()

    count = request["count"]
    saved = []
    for i, (image, path) in enumerate(zip(images, output_paths(out, len(images)), strict=True)):
        about = {
            **request,
            "prompt": prompts[i // count],
            "seed": request["seed"] + i,
            "base": base,
            "lora": list(lora),
            "controls": told,
            "width": image.width,
            "height": image.height,
        }
        save_picture(image, path, about, hints)
        saved.append({"file": str(path), "prompt": about["prompt"], "seed": about["seed"]})
    return {
        "pictures": saved,
        "base": base,
        "lora": list(lora),
        "controls": told,
        **request,
        "seconds": {"loading": round(loaded - began, 3), "generating": round(done - loaded, 3)},
    }


def output_paths(out: Path, count: int) -> list[Path]:
    """One picture: the file itself. Several: numbered before the suffix. No suffix: a folder of numbered pictures."""
    if not out.suffix or out.is_dir():
        return [out / f"{i:04d}.png" for i in range(count)]
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: pictures are saved as .png, because they carry how they were made")
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(count)]
