"""What `from module import name` gives of a module that is not executed."""

from __future__ import annotations

import importlib
from typing import Any, Union


class StandIn:
    """Calls, attributes and subclasses are those of the real thing, and execute the module. Nothing
    is an instance of a class that does not exist yet.
    """

    def __init__(self, finder: Any, module: str, name: str) -> None:
        """finder: the `Finder` that executes the module."""
        vars(self).update(_finder=finder, _module=module, __name__=name, __qualname__=name)

    def _real(self) -> Any:
        return self._finder.real(self._module, self.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and self._module not in self._finder.executed:
            raise AttributeError(name)  # Python and `typing` ask whether it is something special
        return getattr(self._real(), name)

    def __or__(self, other: Any) -> Any:  # in an annotation
        return Union[self, other]  # noqa: UP007

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return self._module in self._finder.executed and isinstance(instance, self._real())

    def __subclasscheck__(self, kind: type) -> bool:
        return self._module in self._finder.executed and issubclass(kind, self._real())

    def __reduce__(self) -> Any:
        return getattr, (importlib.import_module(self._module), self.__name__)


class Marker(StandIn):
    """Of a decorator that registers what it is given and returns it. The module gets all of it when
    it is executed.
    """

    def __init__(self, finder: Any, module: str, name: str, marked: list[Any]) -> None:
        super().__init__(finder, module, name)
        vars(self)["_marked"] = marked

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._module in self._finder.executed or len(args) != 1 or kwargs:
            return super().__call__(*args, **kwargs)
        self._marked.append((self.__name__, args[0]))
        return args[0]
