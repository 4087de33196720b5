"""What can be fuzzed. A target prepares once a process, then gives one call a case.

`prepare(room)` may keep files below `room`. `case(rng, work)` writes mutated inputs below `work/in`
and returns a call that may write below `work/out` and nowhere else. `call.detail` says how to see
the case again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["TARGETS", "Call", "command"]

Call = Callable[[], Any]


def command(*words: object) -> Call:
    """A call of the command line in this process. Its exit codes 0, 2 and 3 are no faults."""
    from zeroconv.cli import app

    call: Any = partial(app, [str(word) for word in words], prog_name="zeroconv")
    call.detail = " ".join(["zeroconv", *(repr(str(word)) for word in words)])[:1000]
    return call


def detailed(call: Callable[..., Any], *words: object) -> Call:
    """Any other call, with its arguments as the detail."""
    made: Any = partial(call, *words)
    made.detail = f"{getattr(call, '__name__', call)}{tuple(map(str, words))}"[:1000]
    return made


def _load(module: str, name: str) -> Callable[[], Any]:
    def make() -> Any:
        from importlib import import_module

        return getattr(import_module(f"tools.fuzz.targets.{module}"), name)()

    return make


TARGETS: dict[str, Callable[[], Any]] = {
    "pictures": _load("pictures", "Pictures"),
    "lists": _load("lists", "Lists"),
    "archives": _load("archives", "Archives"),
    "weights": _load("weights", "Weights"),
    "caches": _load("caches", "Caches"),
    "runs": _load("runs", "Runs"),
    "recipes": _load("recipes", "Recipes"),
    "options": _load("options", "Options"),
}
