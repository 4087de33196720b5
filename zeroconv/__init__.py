"""zeroconv trains, measures and runs ControlNets.

The public names are imported when they are first used, so that `import zeroconv` and `zeroconv
--help` stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zeroconv.threads import set_waiting

set_waiting()  # torch is imported later, and reads it then

__version__ = "0.1.0"

if TYPE_CHECKING:
    from zeroconv import (
        baselines,
        checkpoints,
        conditions,
        data,
        evaluation,
        generation,
        playroom,
        prompts,
        training,
    )
    from zeroconv.adapters import IPAdapter
    from zeroconv.annotators import annotate
    from zeroconv.backbones import load_backbone
    from zeroconv.control import ControlNet
    from zeroconv.errors import UserError
    from zeroconv.evaluation import evaluate
    from zeroconv.generation import Control, ImagePrompt, ReferencePicture, generate
    from zeroconv.training import train

__all__ = [
    "Control",
    "ControlNet",
    "IPAdapter",
    "ImagePrompt",
    "ReferencePicture",
    "UserError",
    "__version__",
    "annotate",
    "baselines",
    "checkpoints",
    "conditions",
    "data",
    "evaluate",
    "evaluation",
    "generate",
    "generation",
    "load_backbone",
    "playroom",
    "prompts",
    "train",
    "training",
]

# public name → the module that defines it; every other name of __all__ is a module itself
_HOMES = {
    "Control": "zeroconv.generation",
    "ControlNet": "zeroconv.control",
    "IPAdapter": "zeroconv.adapters",
    "ImagePrompt": "zeroconv.generation",
    "ReferencePicture": "zeroconv.generation",
    "UserError": "zeroconv.errors",
    "annotate": "zeroconv.annotators",
    "evaluate": "zeroconv.evaluation",
    "generate": "zeroconv.generation",
    "load_backbone": "zeroconv.backbones",
    "train": "zeroconv.training",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"zeroconv.{name}")
    else:
        from zeroconv.renamed import old_name  # here: nothing else needs it

        return old_name(__name__, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
