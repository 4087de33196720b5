"""A1111's text on how a picture was made: prompt, "Negative prompt: …", and a line of settings.

Writing: so that A1111's reader fills its fields. Reading: as far as there is an option for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zeroconv.errors import UserError
from zeroconv.generation.samplers.names import read_names

LONGEST = 1_000_000  # characters of a text that is read
NEGATIVE = "Negative prompt:"

SAMPLERS = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "dpm++2m": "DPM++ 2M",
    "dpm++2m_sde": "DPM++ 2M SDE",
    "dpm++2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpm++3m_sde": "DPM++ 3M SDE",
    "dpm++sde": "DPM++ SDE",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "heun": "Heun",
    "lms": "LMS",
    "deis": "DEIS",
    "pndm": "PLMS",
    "unipc": "UniPC",
    "lcm": "LCM",
    "tcd": "TCD",
}
SCHEDULES = {
    "karras": "Karras",
    "exponential": "Exponential",
    "trailing": "SGM Uniform",
    "linspace": "Uniform",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
}
MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
RESIZES = {"stretch": "Just Resize", "crop": "Crop and Resize", "fill": "Resize and Fill"}
# "NV" computes an NVIDIA card's numbers on any machine, as `noise="gpu"` does
SOURCES = {"cpu": "CPU", "gpu": "NV"}


@dataclass
class Reading:
    """What another program's text says: values by the names of generate's options, and sentences on
    what is not read.
    """

    program: str
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- writing


def parameters_text(about: Mapping[str, Any]) -> str:
    """A1111's lines: prompt, negative prompt, settings; the controls as its ControlNet extension
    writes them.
    """
    sampler, schedule = _names(about)
    sized = "width" in about and "height" in about
    skip = about.get("clip_skip")
    settings = {
        "Steps": about.get("steps"),
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": about.get("cfg"),
        "Seed": about.get("seed"),
        "Size": f"{about['width']}x{about['height']}" if sized else None,
        "Model": about.get("base"),
        "VAE": about.get("vae"),
        "Clip skip": skip + 1 if isinstance(skip, int) and skip else None,
        "Eta": about.get("eta"),
        "RNG": SOURCES.get(str(about.get("noise"))),
    }
    for i, control in enumerate(about.get("controls") or ()):
        settings[f"ControlNet {i}"] = _unit(control)
    parts = [f"{name}: {_quoted(value)}" for name, value in settings.items() if value is not None]
    negative = f"{NEGATIVE} {about.get('negative', '')}"
    return "\n".join([str(about.get("prompt", "")), negative, ", ".join(parts)])


def _names(about: Mapping[str, Any]) -> tuple[Any, Any]:
    """A1111's names of sampler and schedule; where it has none, ours."""
    try:
        sampler, schedule = read_names(about["scheduler"], about.get("schedule"))
    except (UserError, KeyError, TypeError, AttributeError):
        return about.get("scheduler"), about.get("schedule")
    return SAMPLERS.get(sampler, sampler), SCHEDULES.get(schedule or "", schedule)


def _unit(control: Mapping[str, Any]) -> str:
    scale = control.get("scale", control.get("weight"))  # as pictures of older versions have it
    parts = [
        f"Model: {control.get('name')}",
        f"Weight: {scale}",
        f"Guidance Start: {control.get('start')}",
        f"Guidance End: {control.get('end')}",
    ]
    if (resize := RESIZES.get(str(control.get("resize")))) is not None:
        parts.append(f"Resize Mode: {resize}")
    if (mode := MODES.get(str(control.get("mode")))) is not None:
        parts.append(f"Control Mode: {mode}")
    return ", ".join(parts)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ',:\n"') else text


# ---------------------------------------------------------------- reading


def read_parameters(text: str) -> Reading:
    """A1111's text → values of generate's options.

    Raises UserError for a text of more than `LONGEST` characters.
    """
    if len(text) > LONGEST:
        raise UserError(f"A1111's text has {len(text):,} characters; {LONGEST:,} are read.")
    lines = text.strip().split("\n")
    settings = split_settings(lines[-1])
    if "Steps" in settings or len(settings) >= 3:
        lines.pop()
    else:
        settings = {}
    at = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:])[len(NEGATIVE) :]

    reading = Reading("A1111")
    reading.values = {"prompt": ["\n".join(lines[:at]).strip()], "negative": negative.strip()}
    if settings:
        reading.values["noise"] = "gpu"  # A1111's default, where RNG is not written
    unread = []
    for name, value in settings.items():
        if name.startswith("ControlNet"):
            reading.notes.append(
                f"its {name} ({value[:80]}) holds no hint; give --control NAME=PICTURE"
            )
        elif name in ("Model", "VAE"):
            option = "--base" if name == "Model" else "--vae"
            reading.notes.append(f"its {name} is {value[:80]!r}; name a file of it by {option}")
        elif name not in _READERS or not _read(name, value, settings, reading):
            unread.append(f"{name[:40]} ({value[:40]})")
    if "Hires upscale" in settings:
        _upscaler(settings.get("Hires upscaler", "Latent"), reading)
    if unread:
        listed = ", ".join(unread[:20])
        reading.notes.append(f"not read of it: {listed}{' …' if len(unread) > 20 else ''}")
    return reading


def split_settings(line: str) -> dict[str, str]:
    """`Steps: 20, Model: "a, b"` → names and values. A value in quotes is a JSON text, and a comma
    within it parts nothing. What is no `name: value` is left out.
    """
    settings: dict[str, str] = {}
    for part in _split(line):
        name, colon, value = part.partition(":")
        value = value.strip()
        if colon and re.fullmatch(r"\w[\w \-/.]{0,60}", name.strip()):
            settings.setdefault(name.strip(), _unquoted(value))
    return settings


def _split(line: str) -> list[str]:
    """At commas outside of quotes; one pass."""
    parts, start, inside, escaped = [], 0, False, False
    for i, sign in enumerate(line):
        if escaped:
            escaped = False
        elif sign == "\\" and inside:
            escaped = True
        elif sign == '"':
            inside = not inside
        elif sign == "," and not inside:
            parts.append(line[start:i])
            start = i + 1
    return [*parts, line[start:]]


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except (ValueError, RecursionError):
            return value[1:-1]
    return value


def _read(name: str, value: str, settings: Mapping[str, str], reading: Reading) -> bool:
    """Whether a setting could be read into the values."""
    try:
        read = _READERS[name](value, settings)
    except (ValueError, OverflowError):
        return False
    reading.values |= read or {}
    return read is not None


def _sampler(value: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """The sampler, with the schedule that its name holds."""
    sampler, schedule = read_names(value, None)
    return {"scheduler": sampler, "schedule": schedule}


def _schedule(value: str, settings: Mapping[str, str]) -> dict[str, Any] | None:
    """Read apart, so that an unknown one leaves the sampler. It is written behind the sampler."""
    sampler = settings.get("Sampler")
    if sampler is None:
        return None
    if value == "Automatic":
        known = read_names(sampler, None)[1]
        return {} if known else {"schedule": read_names(sampler, "automatic")[1]}
    return {"schedule": read_names(sampler, value)[1]}


def _upscaler(name: str, reading: Reading) -> None:
    """Of the second pass: A1111's "Latent", else of pixels. Networks are not there."""
    latent = name.startswith("Latent")
    reading.values["hires_upscaler"] = "latent" if latent else "lanczos"
    if name not in ("Latent", "Lanczos"):
        near = reading.values["hires_upscaler"]
        reading.notes.append(f"its Hires upscaler {name[:40]!r} is not there, {near} stands for it")


def _size(value: str, settings: Mapping[str, str]) -> dict[str, Any] | None:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", value)
    return {"width": int(match[1]), "height": int(match[2])} if match else None


def _strength(value: str, settings: Mapping[str, str]) -> dict[str, Any] | None:
    """Of the second pass; of a picture made from a picture it cannot be used, as that one is not
    there.
    """
    return {"hires_strength": _number(value)} if "Hires upscale" in settings else None


def _noise(value: str, settings: Mapping[str, str]) -> dict[str, Any] | None:
    names = {"CPU": "cpu", "GPU": "gpu", "NV": "gpu"}
    return {"noise": names[value]} if value in names else None


def _number(text: str) -> float:
    if len(text) > 30:
        raise ValueError(text[:30])
    return float(text)


def _integer(text: str) -> int:
    if not re.fullmatch(r"\d{1,20}", text, re.ASCII):
        raise ValueError(text[:30])
    return int(text)


def _seed(value: str, settings: Mapping[str, str]) -> dict[str, Any] | None:
    seed = _integer(value)
    return {"seed": seed} if seed <= 2**53 else None


def _as(option: str, kind: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    return lambda value, settings: {option: kind(value)}


_READERS: dict[str, Callable[[str, Mapping[str, str]], dict[str, Any] | None]] = {
    "Steps": _as("steps", _integer),
    "Sampler": _sampler,
    "Schedule type": _schedule,
    "CFG scale": _as("cfg", _number),
    "Seed": _seed,
    "Size": _size,
    "RNG": _noise,
    "Eta": _as("eta", _number),
    "Clip skip": lambda value, settings: {"clip_skip": _integer(value) - 1 or None},
    "Hires upscale": _as("hires", _number),
    "Hires steps": _as("hires_steps", _integer),
    "Hires upscaler": lambda value, settings: {} if "Hires upscale" in settings else None,
    "Denoising strength": _strength,
    "Model hash": lambda value, settings: {},
    "VAE hash": lambda value, settings: {},
    "Version": lambda value, settings: {},
}
