"""How strongly a file changes each part of a base, and how people write that."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

from zeroconv.errors import UserError
from zeroconv.words import exists, number, number_behind

PARTS = ("unet", "text_encoder", "text_encoder_2", "text_encoder_3")

# one number, or a number a part; parts that are not named have 1
Strength = float | Mapping[str, float]

# what a part is called → which parts that are
_WORDS = {
    "unet": ("unet",),
    "transformer": ("unet",),
    "text": PARTS[1:],
    "te": PARTS[1:],
    "text_encoder": ("text_encoder",),
    "te1": ("text_encoder",),
    "text1": ("text_encoder",),
    "text_encoder_2": ("text_encoder_2",),
    "te2": ("text_encoder_2",),
    "text2": ("text_encoder_2",),
    "text_encoder_3": ("text_encoder_3",),  # T5
    "te3": ("text_encoder_3",),
    "text3": ("text_encoder_3",),
}
HOW = "write FILE, FILE:0.8 or FILE=unet:0.8,text:0.5"


def parse_lora(text: str | os.PathLike) -> tuple[str, Strength]:
    """ "style.safetensors:0.8" → ("style.safetensors", 0.8); without a number, 1.

    Also "FILE=0.8", and "FILE=unet:0.8,text:0.5" with a number a part. A file whose whole name is
    the text wins; a note says so where the text has a second meaning. Raises UserError for a weight
    that is no finite number, and for a part that no base has.
    """
    text = os.fspath(text)
    if (behind := _behind_equals(text)) is not None:
        return behind
    file, weight, two_ways = number_behind(text)
    if two_ways:
        other, _, digits = text.rpartition(":")
        warnings.warn(
            f"{text!r} is taken as the name of a file, not as {other!r} with a weight; for that "
            f"write '{other}:{float(digits):+}'.",
            stacklevel=2,
        )
    if weight is not None or exists(text):
        return file, 1.0 if weight is None else weight
    tail = text.rpartition(":")[2]
    if tail != text and not any(sign in tail for sign in "/\\"):
        raise UserError(f"the LoRA {text!r} has the weight {tail!r}; {HOW}.")
    return text, 1.0


def _behind_equals(text: str) -> tuple[str, Strength] | None:
    """The file and the strength behind the last `=`; None where the sign is part of a name."""
    name, equals, tail = text.rpartition("=")
    if not equals or not name or exists(text) or exists(text.rpartition(":")[0]):
        return None
    if (value := number(tail)) is not None:
        return name, value
    entries = [entry.partition(":") for entry in tail.split(",")]
    named = any(word.strip().lower() in _WORDS for word, _, _ in entries)
    if not named and (not exists(name) or any(sign in tail for sign in "/\\")):
        return None

    strengths: dict[str, float] = {}
    for word, colon, digits in entries:
        value = number(digits)
        parts = _WORDS.get(word.strip().lower())
        if parts is None or value is None:
            raise UserError(
                f"the LoRA {text!r} has the weight {word + colon + digits!r}; {HOW} (parts: unet, "
                "text, te1, te2, te3)."
            )
        strengths |= dict.fromkeys(parts, value)
    return name, strengths


def strength_of(strength: Strength, part: str) -> float:
    """The number for one of `PARTS`: 1 where the strength names other parts only.

    Raises UserError for a part that no base has.
    """
    if not isinstance(strength, Mapping):
        return float(strength)
    known: dict[str, float] = {}
    for word, value in strength.items():
        if word not in _WORDS:
            raise UserError(
                f"a LoRA's strength names the part {word!r}; its parts are unet, text, te1, te2, "
                "te3."
            )
        known |= {name: float(value) for name in _WORDS[word]}
    return known.get(part, 1.0)
