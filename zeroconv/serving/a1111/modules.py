"""Preprocessors by the names of A1111's ControlNet extension: which there are, their sliders, and
what a request's thresholds mean to the condition that stands for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from zeroconv.annotators import find_weights
from zeroconv.conditions import CONDITIONS, known
from zeroconv.conditions.names import A1111, Preprocessor
from zeroconv.conditions.union import union_kind
from zeroconv.errors import UserError

NONE = "none"
LEAST, MOST, STEP = 64, 2048, 8  # of a resolution
ALL = "All"


@dataclass(frozen=True)
class Slider:
    """One of the two thresholds: the parameter that it sets, and its range.

    scale: the parameter is the slider's value times this, at a resolution (pixels).
    """

    parameter: str
    name: str
    value: float
    least: float
    most: float
    step: float
    scale: Callable[[float], float] = field(default=lambda resolution: 1.0)

    def __call__(self, value: float, resolution: float) -> float:
        """The parameter; out of the slider's range its default's."""
        inside = self.least <= value <= self.most
        return (value if inside else self.value) * self.scale(resolution)


def _per_pixel(resolution: float) -> float:
    return 1 / resolution


_LEVEL = Slider("level", "Binarization Threshold", 127, 0, 255, 1)
_GAMMA = Slider("gamma", "Gamma Correction", 1.0, 0.1, 2.0, 0.001)
SLIDERS: dict[str, tuple[Slider, ...]] = {
    "canny": (
        Slider("low", "Low Threshold", 100, 1, 255, 1),
        Slider("high", "High Threshold", 200, 1, 255, 1),
    ),
    "threshold": (_LEVEL,),
    "recolor_luminance": (_GAMMA,),
    "recolor_intensity": (_GAMMA,),
    "blur_gaussian": (Slider("sigma", "Sigma", 9.0, 0.01, 64.0, 0.01, _per_pixel),),
    "tile_resample": (Slider("factor", "Down Sampling Rate", 1.0, 1.0, 8.0, 0.01),),
}
WITHOUT_RESOLUTION = ("invert", "inpaint", "shuffle")
# A1111's tags: the conditions of each, and what is chosen first
TAGS: dict[str, tuple[tuple[str, ...], str]] = {
    "Canny": (("canny",), "canny"),
    "Depth": (("depth",), "depth_midas"),
    "NormalMap": (("normal",), "normal_bae"),
    "OpenPose": (("pose",), "openpose_full"),
    "MLSD": (("lines",), "mlsd"),
    "Lineart": (("lineart",), "lineart_standard (from white bg & black line)"),
    "SoftEdge": (("softedge",), "softedge_pidinet"),
    "Scribble": (("scribble",), "scribble_pidinet"),
    "Segmentation": (("segmentation",), "seg_ofade20k"),
    "Shuffle": (("shuffle",), "shuffle"),
    "Tile": (("tile", "blur"), "tile_resample"),
    "Inpaint": (("inpaint",), "inpaint_only"),
    "Recolor": (("recolor",), "recolor_luminance"),
    "T2I-Adapter": (("palette",), "t2ia_color_grid"),
}


@dataclass(frozen=True)
class Module:
    """A preprocessor that can be drawn here, by A1111's name for it; condition None draws
    nothing.
    """

    name: str
    condition: str | None
    sliders: tuple[Slider, ...] = ()

    @property
    def has_resolution(self) -> bool:
        return self.condition is not None and self.condition not in WITHOUT_RESOLUTION

    def resolution(self, asked: float, default: int) -> int:
        """Pixels of the shorter side that is read; −1 and what is out of range are the default."""
        return round(asked) if LEAST <= asked <= MOST else default

    def parameters(self, a: float, b: float, resolution: int) -> dict[str, float]:
        """Those of the condition, from the two thresholds of a request."""
        values = {}
        for slider, given in zip(self.sliders, (a, b), strict=False):
            value = slider(given, resolution)
            values[slider.parameter] = round(value) if slider.parameter == "level" else value
        if "low" in values:  # A1111's canny takes them in either order
            values["low"], values["high"] = sorted((values["low"], values["high"]))
        return values

    def detail(self, default: int) -> dict[str, Any]:
        """What `/controlnet/module_list` says of it."""
        sliders = list(map(_shown, self.sliders))
        if self.has_resolution:
            resolution = Slider("", "Resolution", default, LEAST, MOST, STEP)
            sliders.insert(0, _shown(resolution))
        return {"model_free": False, "sliders": sliders}


def _shown(slider: Slider) -> dict[str, Any]:
    return {
        "name": slider.name,
        "value": slider.value,
        "min": slider.least,
        "max": slider.most,
        "step": slider.step,
    }


def modules() -> dict[str, Module]:
    """Those that can be drawn on this machine, "none" first; then the names of conditions here."""
    entries: dict[str, Preprocessor] = {**A1111}
    entries |= {name: Preprocessor(name) for name in CONDITIONS if name not in entries}
    able = {NONE: Module(NONE, None)}
    for name, entry in entries.items():
        if entry.condition is not None and can_draw(entry):
            able[name] = Module(name, entry.condition, SLIDERS.get(name, ()))
    return able


def find_module(name: str) -> Module | None:
    """A module of a name in any case; None where nothing draws it here."""
    wanted = name.strip().lower()
    known_here = modules()
    return known_here.get(wanted) or next(
        (module for key, module in known_here.items() if key.lower() == wanted), None
    )


def can_draw(entry: Preprocessor) -> bool:
    """Whether pixels alone tell the hint, or the network that reads it is on this machine."""
    condition = CONDITIONS[entry.condition or ""]
    if condition.draw is not None:
        return True
    needed = {"pose": ["posenet"], "person": ["posenet", "selfie"]}.get(condition.name)
    if needed is None:  # depth and the like are read by a model that a user names
        return False
    if entry.settings.get("hands") or entry.settings.get("face"):
        needed.append("landmarks")
    return all(map(_fetched, needed))


@cache
def _fetched(network: str) -> bool:
    try:
        find_weights(network)
    except UserError:
        return False
    return True


def union_kind_of(name: str, module: Module) -> str | None:
    """The kind of a Union control's hint: A1111's name of it, else what the module draws."""
    if name.strip().lower() not in ("", "unknown"):
        if union_kind(name) is None:
            raise UserError(f"union_control_type {name[:60]!r} is none; see A1111's list.")
        return name
    drawn = module.condition
    return drawn if drawn is not None and union_kind(drawn) is not None else None


def control_types(controls: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """What `/controlnet/control_types` answers. controls: names and the conditions they read."""
    able = modules()
    types = {ALL: _type(list(able), list(controls), NONE)}
    for tag, (conditions, first) in TAGS.items():
        drawn = [name for name, module in able.items() if module.condition in conditions]
        named = [name for name, read in controls.items() if _condition(read) in conditions]
        options = [NONE, *drawn]
        types[tag] = _type(options, named, first if first in drawn else options[-1])
    return types


def _condition(name: str | None) -> str | None:
    condition = known(name)
    return None if condition is None else condition.name


def _type(drawn: Sequence[str], controls: Sequence[str], first: str) -> dict[str, Any]:
    models = ["None", *controls]
    default = models[1] if len(models) > 1 and first != NONE else "None"
    return {
        "module_list": list(drawn),
        "model_list": models,
        "default_option": first,
        "default_model": default,
    }
