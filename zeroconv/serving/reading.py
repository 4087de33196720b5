"""The settings in a picture's file, as a body of /generate."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from zeroconv.errors import UserError
from zeroconv.jsonfile import parse_json
from zeroconv.pictures import picture_size
from zeroconv.serving.catalogue import Catalogue
from zeroconv.serving.errors import one_sentence
from zeroconv.serving.pixels import read_loaded

# names of `zeroconv generate` → ours, and the kind of their values
PLAIN: dict[str, tuple[str, type]] = {
    "negative": ("negative", str),
    "base": ("base", str),
    "steps": ("steps", int),
    "cfg": ("cfg", float),
    "seed": ("seed", int),
    "width": ("width", int),
    "height": ("height", int),
    "scheduler": ("sampler", str),
    "schedule": ("schedule", str),
    "guidance": ("guidance", str),
    "clip_skip": ("clip_skip", int),
    "eta": ("eta", float),
    "guidance_rescale": ("guidance_rescale", float),
    "noise": ("noise", str),
    "fast": ("fast", str),
    "strength": ("strength", float),
    "only_masked": ("only_masked", bool),
    "padding": ("padding", int),
    "mask_blur": ("mask_blur", float),
    "masked_content": ("masked_content", str),
}
HIRES = {"hires_strength": "strength", "hires_steps": "steps", "hires_upscaler": "upscaler"}
MOST_KEPT = 100  # pictures of each kind that are read from a file
OF_IMAGE = ("strength", "only_masked", "padding", "mask_blur", "masked_content")


def settings_of(content: bytes, catalogue: Catalogue, pixels: int) -> dict[str, Any]:
    """{"program", "settings", "notes"}. Raises UserError for a picture that says nothing of its
    making, or what is damaged.
    """
    from zeroconv.generation.metadata.record import read_foreign
    from zeroconv.pictures.carried import carried

    picture_size(content, "the picture", pixels)  # before anything is decoded
    texts = carried(content, "the picture")
    if "zeroconv" not in texts:
        reading = read_foreign(_Named(content))  # type: ignore[arg-type]
        settings = _plain(reading.values)
        if prompts := reading.values.get("prompt"):
            settings["prompt"] = str(prompts[0])
        notes = [*reading.notes, *_unknown_base(settings, catalogue)]
        return {
            "program": reading.program,
            "settings": settings,
            "notes": [one_sentence(note) for note in notes],
        }
    try:
        about = parse_json(texts["zeroconv"])
        settings = _ours(about, pixels)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the picture carries damaged words ({error}).") from error
    notes = _unknown_base(settings, catalogue) + _unknown_controls(settings, catalogue)
    return {"program": "zeroconv", "settings": settings, "notes": notes}


class _Named(io.BytesIO):
    """Bytes that messages call "the picture"."""

    def __str__(self) -> str:
        return "the picture"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, (ours, kind) in PLAIN.items():
        value = values.get(name)
        if value is not None:
            settings[ours] = kind(value)
    if values.get("hires") is not None:
        pairs = {ours: values[name] for name, ours in HIRES.items() if values.get(name) is not None}
        settings["hires"] = {"factor": float(values["hires"]), **pairs}
    return settings


def _ours(about: Mapping[str, Any], pixels: int) -> dict[str, Any]:
    """pixels: of each picture that the file carries, at most."""
    settings = {**_plain(about), "prompt": str(about["prompt"]), "count": 1}
    hints = [_kept(hint, pixels) for hint in list(about["hints"])[:MOST_KEPT]]
    inputs = {
        str(name): _kept(picture, pixels)
        for name, picture in list(dict(about.get("inputs") or {}).items())[:MOST_KEPT]
    }
    settings |= {name: inputs[name] for name in ("image", "mask") if name in inputs}
    if "image" not in inputs:
        settings = {k: v for k, v in settings.items() if k not in OF_IMAGE}
    elif isinstance(about.get("expand"), dict):
        settings["expand"] = about["expand"]
    settings["loras"] = [_lora(word) for word in about.get("lora") or ()]
    controls = list(about.get("controls") or ())[:MOST_KEPT]
    settings["controls"] = [_control(one, i, hints, inputs) for i, one in enumerate(controls)]
    return settings


def _kept(text: Any, pixels: int) -> str:
    """A picture that the file carries, looked at, as a data URL."""
    read_loaded(str(text), "a picture in the picture's file", pixels)
    return f"data:image/png;base64,{text}"


def _lora(word: str) -> dict[str, Any]:
    name, colon, scale = str(word).rpartition(":")
    try:
        return {"name": name, "scale": float(scale)} if colon else {"name": scale, "scale": 1.0}
    except ValueError:
        return {"name": str(word), "scale": 1.0}


def _control(
    control: Mapping[str, Any], number: int, hints: list[str], inputs: Mapping[str, str]
) -> dict[str, Any]:
    unit: dict[str, Any] = {
        "control": str(control["name"]),
        "scale": float(control.get("scale", control.get("weight", 1.0))),
    }
    for name in ("start", "end"):
        if control.get(name) is not None:
            unit[name] = float(control[name])
    for name in ("mode", "resize", "passes", "kind"):
        if control.get(name) is not None:
            unit[name] = str(control[name])
    for name in ("curve", "connection_scales"):
        if control.get(name) is not None:
            unit[name] = control[name]
    if number < len(hints) and not control.get("of_image"):
        unit["hint"] = hints[number]
    if f"mask {number}" in inputs:
        unit["region"] = inputs[f"mask {number}"]
    return unit


def _unknown_base(settings: dict[str, Any], catalogue: Catalogue) -> list[str]:
    """A base that is not here is left out, with a note."""
    base = settings.get("base")
    if base is None or base in catalogue.bases:
        return []
    del settings["base"]
    return [one_sentence(f"its base {base[:80]!r} is not here; {catalogue.default} is taken")]


def _unknown_controls(settings: dict[str, Any], catalogue: Catalogue) -> list[str]:
    names = [unit["control"] for unit in settings["controls"]]
    return [
        one_sentence(f"its control {name[:80]!r} is not here; choose another")
        for name in names
        if name not in catalogue.controls
    ]
