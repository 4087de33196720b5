"""The grammar of prompts, which is A1111's: weights, BREAK and `<lora:name:weight>`.

```
(text:1.2)         the weight 1.2
(text)             the weight 1.1
[text]             the weight 1 / 1.1
\\( \\) \\[ \\] \\\\     the sign itself
BREAK              begin a new chunk
<lora:name:0.8>    taken out of the text
```
Weights of nested brackets are multiplied. Every text can be parsed. A bracket without its partner
reaches to the end, a closing one without its partner is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal

from zeroconv.prompts.signs import Sign, finite, pair_brackets, signs

ROUND = 1.1  # the weight of (text); of [text] it is one over this (A1111)
_AND = re.compile(r"\bAND\b")
STRONGEST = 100.0  # weights beyond are set to it: states are noise long before
MOST_NOTES = 5  # of a prompt


@dataclass(frozen=True)
class Span:
    """A piece of text with one weight."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class LoraTag:
    """`<lora:name:weight>`, or `<lora:name:text weight:UNet weight>`."""

    name: str
    weight: float = 1.0  # of the UNet's part
    text_weight: float = 1.0  # of the text encoders' part


@dataclass(frozen=True)
class Prompt:
    """A prompt as it is read. `sections` are what BREAK parts; neighbours differ in weight."""

    sections: tuple[tuple[Span, ...], ...]
    loras: tuple[LoraTag, ...] = ()
    # what was read in another way than A1111 reads it, or dropped; a sentence each
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """The text alone, without weights."""
        return " ".join("".join(span.text for span in part) for part in self.sections)


def plain(text: str) -> Prompt:
    """A text that is read as it stands, brackets included."""
    return Prompt(((Span(text),),) if text else ((),))


def parse(text: str) -> Prompt:
    """Read a prompt. Any text can be read; every weight is finite, in [−100, 100]."""
    notes: list[str] = []
    rest, loras = _take_tags(text, notes)
    if _AND.search(rest):
        notes.append("AND is read as a word; several prompts in one are not supported")

    tokens = pair_brackets(signs(rest, notes), notes)
    sections = _weighted(tokens, notes)
    return Prompt(sections, loras, tuple(dict.fromkeys(notes))[:MOST_NOTES])


def write(prompt: Prompt) -> str:
    """A text that `parse` reads as this prompt: sections and LoRA tags are equal."""
    parts = ["".join(_written(span) for span in section) for section in prompt.sections]
    guarded = [
        f"{'()' * part[:1].isspace()}{part}{'()' * part[-1:].isspace()}" if len(parts) > 1 else part
        for part in parts
    ]
    tags = "".join(
        f"<lora:{tag.name}:{_number(tag.text_weight)}:{_number(tag.weight)}>"
        for tag in prompt.loras
    )
    return " BREAK ".join(guarded) + tags


def loras_of(text: str) -> tuple[LoraTag, ...]:
    """The `<lora:…>` tags of a prompt, in their order."""
    return _take_tags(text, [])[1]


# ---------------------------------------------------------------- LoRA tags

_TAG = re.compile(r"<(\w+):([^<>]*)>")
_CUT_TAG = re.compile(r"<(?:lora|lyco):[^<>]*", re.IGNORECASE)
_LORA_KINDS = ("lora", "lyco")  # lyco: the name of an older extension


def _take_tags(text: str, notes: list[str]) -> tuple[str, tuple[LoraTag, ...]]:
    """The text without `<kind:name:…>`, and the LoRAs among them."""
    loras: list[LoraTag] = []

    def take(match: re.Match[str]) -> str:
        kind, arguments = match.group(1).lower(), match.group(2)
        tag = _lora(arguments) if kind in _LORA_KINDS else None
        if tag is None:
            notes.append(f"{match.group()!r} is no <lora:name:weight>, so it is read as text")
            return match.group()
        loras.append(tag)
        return ""

    rest = _TAG.sub(take, text)
    for match in _CUT_TAG.finditer(_TAG.sub("", text)):
        notes.append(f"{match.group()[:40]!r} is not closed by >, so it is read as text")
    return rest, tuple(loras)


def _lora(arguments: str) -> LoraTag | None:
    """`name`, `name:weight`, `name:text weight:UNet weight`, or with te= and unet=, as A1111."""
    name, *given = arguments.split(":")
    values: dict[str, float] = {}
    for index, word in enumerate(given):
        key, equals, number = word.rpartition("=")
        key = key.strip() if equals else ("te", "unet")[index] if index < 2 else ""
        value = finite(number)
        if key not in ("te", "unet") or value is None:
            return None
        values[key] = value
    text = values.get("te", 1.0)
    return LoraTag(name.strip(), values.get("unet", text), text) if name.strip() else None


# ---------------------------------------------------------------- weights


def _weighted(tokens: list[Sign], notes: list[str]) -> tuple[tuple[Span, ...], ...]:
    """The sections: texts with the product of the weights of all brackets around them."""
    sections: list[list[Span]] = [[]]
    # round and square brackets may overlap, so that each kind has products of its own
    products = {"(": [1.0], "[": [1.0]}

    for sign in tokens:
        if sign.kind == "break":
            sections.append([])
        elif sign.kind == "open":
            above = products[sign.text]
            above.append(max(-_HUGE, min(_HUGE, above[-1] * _factor(sign))))
        elif sign.kind == "close":
            products["[" if sign.text == "]" else "("].pop()
        elif sign.kind == "text":
            weight = products["("][-1] * products["["][-1]
            _add(sections[-1], sign.text, _bounded(weight, notes))
    return tuple(tuple(section) for section in sections)


_HUGE = 1e100  # products stay finite


def _factor(sign: Sign) -> float:
    if sign.text == "[":
        return 1 / ROUND
    return ROUND if sign.weight is None else sign.weight


def _bounded(weight: float, notes: list[str]) -> float:
    if abs(weight) <= STRONGEST:
        return weight
    notes.append(f"a weight beyond ±{STRONGEST:g} is set to it; write a smaller one")
    return STRONGEST if weight > 0 else -STRONGEST


def _add(section: list[Span], text: str, weight: float) -> None:
    if section and section[-1].weight == weight:
        text = section.pop().text + text
    section.append(Span(text, weight))


# ---------------------------------------------------------------- writing


def _written(span: Span) -> str:
    """Signs are escaped; `()`, which is nothing, parts what would be read as BREAK or a tag."""
    text = re.sub(r"([\\()\[\]])", r"\\\1", span.text)
    text = text.replace("BREAK", "BRE()AK").replace("<", "<()")
    return text if span.weight == 1 else f"({text}:{_number(span.weight)})"


def _number(value: float) -> str:
    """All digits of a float, without an exponent, which the grammar does not read."""
    return format(Decimal(repr(value)), "f")
