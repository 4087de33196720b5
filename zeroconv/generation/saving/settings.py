"""What is saved, and how often it is computed after all; the presets."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError
from zeroconv.jsonfile import parse_json
from zeroconv.layers.merging import MOST as MOST_MERGED

PRESETS = Path(__file__).with_name("presets.json")
MOST = 1000  # steps between two computations
SHARES = {"change": 1, "guidance_end": 1, "exact": 1, "merge": MOST_MERGED}  # and their most
VAES = ("full", "tiny")


@dataclass(frozen=True)
class Fast:
    """Approximations of a denoising loop. Every default computes everything.

    deep: deep features of the UNet are computed every deep-th step; in the others only the last
    `layers` blocks of its decoder and what they read (DeepCache: Ma, Fang, Wang 2024, section 3.2).
    change: in place of a count, deep features are computed when the latents have changed by this
    share of their norm since, in all of a batch together.
    branch: residuals of controls are computed every branch-th step, of those steps that compute
    deep features, since the others read few residuals.
    difference: the difference between the halves of guidance is computed in steps that compute deep
    features, at least `difference` steps after the last one; in the others the unconditional half
    is left out and the difference stays.
    guidance_end: share of the steps after which guidance is left out (Kynkäänniemi et al. 2024).
    exact: share of the steps, from the first, that are computed entirely.
    merge: share of the tokens that are merged in the self-attentions of the highest resolution that
    has any (Bolya and Hoffman 2023), at most 3 of 4.
    vae: "tiny" decodes the result by a small decoder.
    """

    deep: int = 1
    layers: int = 1
    change: float = 0.0
    branch: int = 1
    difference: int = 1
    guidance_end: float = 1.0
    exact: float = 0.0
    merge: float = 0.0
    vae: str = VAES[0]

    def __post_init__(self) -> None:
        """Raise UserError for values out of range, TypeError for what is no number."""
        for name in ("deep", "layers", "branch", "difference"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"fast: {name} is {value!r}; it is a whole number.")
            if not 1 <= value <= MOST:
                raise UserError(f"fast: {name} is {value}; it lies between 1 and {MOST}.")
        for name, most in (
            ("change", 1),
            ("guidance_end", 1),
            ("exact", 1),
            ("merge", MOST_MERGED),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"fast: {name} is {value!r}; it is a number.")
            if not (math.isfinite(value) and 0 <= value <= most):
                raise UserError(f"fast: {name} is {value}; it lies between 0 and {most}.")
        if not isinstance(self.vae, str):
            raise TypeError(f"fast: vae is {self.vae!r}; it is a text.")
        if self.vae not in VAES:
            raise UserError(f"fast: vae is {self.vae[:40]!r}; it is {' or '.join(VAES)}.")

    @property
    def reuses_deep(self) -> bool:
        return self.deep > 1 or self.change > 0

    def words(self) -> str:
        """As `parse_fast` reads it: NAME=VALUE with commas between, without defaults."""
        changed = [f"{k}={v}" for k, v in asdict(self).items() if v != getattr(EXACT, k)]
        return ",".join(changed) or "off"


EXACT = Fast()


@functools.cache
def presets() -> dict[str, Fast]:
    """Preset → its settings."""
    stored = parse_json(PRESETS.read_text(encoding="utf-8"))
    return {name: Fast(**preset["settings"]) for name, preset in stored.items()}


def parse_fast(value: str | Mapping[str, Any] | Fast | None) -> Fast:
    """ "off", a preset's name, settings as `Fast.words` writes them, a mapping, or a `Fast`.

    Raises UserError for unknown names and values out of range, TypeError for a wrong type.
    """
    if value is None:
        return EXACT
    if isinstance(value, Fast):
        return value
    if isinstance(value, Mapping):
        _check_names(value)
        return Fast(**value)
    if not isinstance(value, str):
        raise TypeError(f"fast is {value!r}; it is a preset's name, a mapping or a Fast.")
    text = value.strip()
    if text == "off":
        return EXACT
    if text in presets():
        return presets()[text]
    if "=" not in text:
        raise UserError(
            f"fast is {text[:60]!r}; it is off, {', '.join(presets())}, or settings such as "
            "deep=3,branch=2."
        )
    pairs = [part.partition("=") for part in text.split(",")]
    given = {name.strip(): number.strip() for name, _, number in pairs}
    if len(given) < len(pairs):
        raise UserError(f"fast is {text[:60]!r}: a name stands there twice; give each once.")
    _check_names(given)
    numbers: dict[str, Any] = {name: _number(name, number) for name, number in given.items()}
    return Fast(**numbers)


def _check_names(given: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Fast)]
    for name in given:
        if name not in known:
            raise UserError(f"fast has no {str(name)[:40]!r}; it has {', '.join(known)}.")


def _number(name: str, text: str) -> int | float | str:
    kind = type(getattr(EXACT, name))
    try:
        return kind(text)
    except ValueError:
        number = "whole number" if kind is int else "number"
        raise UserError(f"fast: {name} is {text[:40]!r}; it is a {number}.") from None
