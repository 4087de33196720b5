"""Empty modules, how Python comes to make them, and how they are executed."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.metadata
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from zeroconv.postponed.modules import Postponed
from zeroconv.postponed.standins import Marker, StandIn


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of a table where Python's own finder does, and makes them empty."""

    def __init__(self, table: dict[str, Postponed]) -> None:
        self.table = table
        self.made: dict[str, Empty] = {}
        self.executed: set[str] = set()  # or being executed now
        self.lock = threading.Lock()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.table:
            package = sys.modules.get(name.rpartition(".")[0])
            if isinstance(package, Empty) and not self.table[package.__name__].parts:
                return self._after(package, name)
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def _after(self, package: Empty, name: str) -> ModuleSpec | None:
        """A submodule once its package is executed, which may have imported it."""
        if threading.get_ident() in vars(package)["_waiting"].threads:
            return None  # by the package itself
        self.execute(package)
        # what Python sees there now, it would execute again
        present = sys.modules.pop(name, None)
        return None if present is None else ModuleSpec(name, _Present(present))

    def inside(self, name: str) -> bool:
        """Whether a package of this module is executed, or being executed."""
        return any(package in self.executed for package in _packages(name))

    def execute(self, module: Empty) -> None:
        """Python's own import executes it, so other threads that import the module wait. Packages
        that it is in come first, unless their parts may be imported alone, and with them all that
        they contain.

        Raises what the module raises. It stays empty then, and its next use tries again.
        """
        name = module.__name__
        packages = [p for p in _packages(name) if p in self.made and not self.table[p].parts]
        root = next(iter(packages), name)
        with self.lock:
            due = [n for n in self.made if f"{n}.".startswith(f"{root}.")] + [root]
            emptied = {n: sys.modules.pop(n) for n in due if self._is_empty(n)}
            self.executed.update(due)
        try:
            importlib.import_module(name)
        except BaseException:
            self.executed.difference_update(emptied)
            sys.modules.update(emptied)
            raise

    def real(self, module: str, name: str) -> Any:
        """A name of a module, which is executed where it was not."""
        there = importlib.import_module(module)
        if isinstance(there, Empty):
            self.execute(there)
        return getattr(there, name)

    def _is_empty(self, name: str) -> bool:
        return name not in self.executed and isinstance(sys.modules.get(name), Empty)


def _packages(name: str) -> list[str]:
    """Of "a.b.c": "a" and "a.b"."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _children(name: str) -> list[str]:
    """Of "a": "a.b", where it is imported."""
    return [n for n in list(sys.modules) if n.rpartition(".")[0] == name]


class _Loader(importlib.abc.Loader):
    """Makes a module without executing it, or executes the one that was made."""

    def __init__(self, real: Any, finder: Finder) -> None:
        self.real, self.finder = real, finder

    def __getattr__(self, name: str) -> Any:  # `get_source` and others
        return getattr(self.real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        made = self.finder.made
        if spec.name not in made:
            made[spec.name] = Empty(spec.name, self.finder)
        module = made[spec.name]
        if (waiting := vars(module).get("_waiting")) is not None:
            waiting.threads.add(threading.get_ident())  # until `exec_module`
        return module

    def exec_module(self, module: ModuleType) -> None:
        waiting: _Waiting = vars(module)["_waiting"]
        if module.__name__ in self.finder.executed:
            waiting.execute(module, self.real)
            return
        waiting.threads.discard(threading.get_ident())


class _Present(importlib.abc.Loader):
    """Of a module that was imported while Python looked for it."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, vars(module).get("__spec__")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__spec__"] = self.spec  # a class of its own may take no attributes


class Empty(ModuleType):
    """A module that is not executed yet."""

    def __init__(self, name: str, finder: Finder) -> None:
        super().__init__(name)
        vars(self)["_waiting"] = _Waiting(finder, finder.table[name], name)

    def __getattr__(self, name: str) -> Any:
        """A name that the module does not have yet."""
        waiting: _Waiting | None = vars(self).get("_waiting")
        if waiting is None:  # another thread has just executed it, or it gave another module
            return getattr(vars(self).get("_instead", self), name)
        if name == "__path__" or threading.get_ident() in waiting.threads:
            # Python asks whether it is a package, or the module for what it does not have yet
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name)
        if not waiting.finder.inside(self.__name__):
            if name in waiting.stand_ins:
                return waiting.stand_ins[name]
            if name in waiting.how.homes:
                return waiting.at_home(name)
            if name == "__version__" and waiting.how.version:
                return importlib.metadata.version(self.__name__)
        waiting.finder.execute(self)
        return getattr(self, name)


class _Waiting:
    """What an empty module knows."""

    def __init__(self, finder: Finder, how: Postponed, name: str) -> None:
        self.finder, self.how = finder, how
        self.threads: set[int] = set()  # of those that make or execute it now
        self.marked: list[tuple[str, Any]] = []
        self.stand_ins: dict[str, StandIn] = {}
        for asked in how.names:
            self.stand_ins[asked] = StandIn(finder, name, asked)
        for marker in how.markers:
            self.stand_ins[marker] = Marker(finder, name, marker, self.marked)

    def at_home(self, name: str) -> Any:
        """A submodule, or what it has of this name."""
        home = self.how.homes[name]
        there = importlib.import_module(home)
        return there if home.rpartition(".")[2] == name else getattr(there, name)

    def execute(self, module: ModuleType, loader: Any) -> None:
        """With Python's lock on the module held."""
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = loader
        try:
            loader.exec_module(module)
            for marker, marked in self.marked:
                getattr(module, marker)(marked)
        finally:
            self.threads.discard(threading.get_ident())
        for name in self.how.then:
            further = importlib.import_module(name)
            if isinstance(further, Empty):
                self.finder.execute(further)
        del module._waiting
        instead = sys.modules.get(module.__name__, module)
        if instead is module:
            module.__class__ = ModuleType
            return
        # the module has put another in its place; who holds this one reads that one's attributes
        vars(module)["_instead"] = instead
        for child in _children(module.__name__):
            vars(instead).setdefault(child.rpartition(".")[2], sys.modules[child])
