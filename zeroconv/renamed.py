"""Old public names. They keep working and print a note; these tables are all of them."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

# function or class → old argument → new argument
ARGUMENTS = {
    "Control": {"weight": "scale", "weights": "connection_scales", "mask": "region"},
    "generate": {"connection_weights": "connection_scales"},
}
# module → old name → new name there
NAMES = {
    "zeroconv": {"rivals": "baselines"},
    "zeroconv.baselines": {
        "RIVALS": "BASELINES",
        "Rival": "Baseline",
        "is_rival": "is_baseline",
        "load_rival": "load_baseline",
        "make_rival": "make_baseline",
    },
    "zeroconv.generation": {"connection_weights": "connection_scales"},
}
# of the command line
OPTIONS = {"--weight": "--scale"}

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def note(old: str, new: str, stacklevel: int = 2) -> None:
    """Tell the caller's user that a name is an old one."""
    text = f"{old} is an old name, which works for now; write {new}."
    warnings.warn(text, stacklevel=stacklevel + 1)


def old_arguments(function: F) -> F:
    """The function, called by its old arguments too. Raises TypeError for both names of one."""
    return _renaming(function, function.__name__)


def _renaming(function: F, name: str) -> F:
    renamed = ARGUMENTS[name]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for old in [key for key in kwargs if key in renamed]:
            new = renamed[old]
            if new in kwargs:
                raise TypeError(f"{name} is given {old} and {new}, which are one; give {new}.")
            note(f"{old} of {name}", new)
            kwargs[new] = kwargs.pop(old)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def old_fields(cls: type[T]) -> type[T]:
    """The dataclass, with its old fields as arguments and as attributes."""
    cls.__init__ = _renaming(cls.__init__, cls.__name__)  # type: ignore[method-assign]
    for old, new in ARGUMENTS[cls.__name__].items():
        setattr(cls, old, _old_field(cls.__name__, old, new))
    return cls


def _old_field(name: str, old: str, new: str) -> property:
    def get(self: Any) -> Any:
        note(f"{old} of {name}", new)
        return getattr(self, new)

    def put(self: Any, value: Any) -> None:
        note(f"{old} of {name}", new)
        setattr(self, new, value)

    return property(get, put, doc=f"Old name of `{new}`.")


def old_name(module: str, name: str) -> Any:
    """For a module's `__getattr__`: what an old name stands for, else AttributeError."""
    new = NAMES[module].get(name)
    if new is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    note(f"{module}.{name}", new, stacklevel=3)
    return getattr(importlib.import_module(module), new)
