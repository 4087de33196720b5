"""Modules of other packages that are executed when something of them is first used.

diffusers imports all of its transformers, torch's compiler and peft before it gives a UNet. A
picture uses none of these, and they take most of the time of the import. `postpone` makes Python
create these modules empty. An empty module is executed, as Python would have executed it at once,
when an attribute of it is first read. So whoever uses it gets the same module.

`zeroconv.cli` calls `postpone`, since a command has its process for itself. The package does not: a
program that imports zeroconv keeps its imports as they are.
"""

from __future__ import annotations

import sys

from zeroconv.postponed.finder import Empty, Finder
from zeroconv.postponed.modules import MODULES, Postponed

__all__ = ["MODULES", "Empty", "Finder", "Postponed", "postpone"]


def postpone() -> None:
    """From now on MODULES are executed when they are first used, in all of the process. A module
    that is imported already stays as it is.
    """
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder(MODULES))
