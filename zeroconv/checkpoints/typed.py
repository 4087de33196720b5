"""Whether the values of a model's config have the kinds that its class declares.

A value of another kind often builds a module all the same, and fails only when that is run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from zeroconv.errors import UserError

_WORDS = re.compile(
    r"\b(int|float|bool|str|tuple|list|dict|None|NoneType|Optional|Any)\b", re.IGNORECASE
)
_ENTRIES = re.compile(r"\b(tuple|list)\[[^\[\]]*\]", re.IGNORECASE)
_KINDS = {
    "bool": "true or false",
    "int": "a whole number, at least 0",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "dict": "an object",
    "none": "null",
}


def check_types(config: Mapping[str, Any], kind: type, where: object) -> None:
    """Raise UserError, naming the entry, where a value is not of the kind that the parameter of
    its name has in `kind.__init__`. What the class does not know is left to it.
    """
    for name, parameter in inspect.signature(kind.__init__).parameters.items():  # type: ignore[misc]
        if name not in config or parameter.annotation is inspect.Parameter.empty:
            continue

        allowed, entries = _allowed(parameter)
        if allowed and not _fits(config[name], allowed, entries):
            wanted = " or ".join(_KINDS[word] for word in _KINDS if word in allowed)
            raise UserError(
                f"{where}: {name} is {str(config[name])[:80]!r} in its config, but it must be "
                f"{wanted}; the config is damaged or of another kind of model."
            )


def _allowed(parameter: inspect.Parameter) -> tuple[set[str], set[str]]:
    """Names of kinds of the value, and of a list's entries, out of the annotation's text and the
    default. Both are empty where anything may be.
    """
    annotation = parameter.annotation
    plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if plain else str(annotation)
    entries, shorter = _words(text), ""

    if "any" in entries or "Literal[" in text:
        return set(), set()
    while text != shorter:  # tuple[tuple[int, ...]] → tuple
        text, shorter = _ENTRIES.sub(r"\1", text), text

    words = _words(text)
    if parameter.default is None or words & {"optional", "nonetype"}:
        words.add("none")
    return words & _KINDS.keys(), entries & _KINDS.keys() - {"none"}


def _words(text: str) -> set[str]:
    words = {word.lower() for word in _WORDS.findall(text)}
    return words | {"list"} if "tuple" in words else words


def _fits(value: Any, allowed: set[str], entries: set[str]) -> bool:
    if value is None:
        return bool(allowed & {"none", "bool"})  # published configs have null for false
    if isinstance(value, bool):
        return "bool" in allowed
    if isinstance(value, int):
        is_size = "int" in allowed and value >= 0
        return is_size or "float" in allowed or ("bool" in allowed and value in (0, 1))
    if isinstance(value, list | tuple):
        return "list" in allowed and all(_fits(inner, entries, entries) for inner in value)
    return type(value).__name__ in allowed
