"""What a compiled graph depends on, as one name: weights, code, versions, processor."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# the code that a graph is traced through, from the folder of the package
_CODE = (
    "backbones/autoencoder.py backbones/encoder.py backbones/protocol.py backbones/unet.py "
    "control/compose.py control/connections.py control/controlnet.py control/union.py "
    "generation/engines/graph.py generation/engines/openvino.py generation/engines/runtime.py "
    "generation/engines/step.py "
    "generation/guidance.py generation/joining.py generation/sampling.py "
    "generation/saving/deep.py generation/saving/predicting.py"
).split()
_LIBRARIES = ("torch", "diffusers")

_KNOWN: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def content_of(module: nn.Module) -> str:
    """A name of 64 hexadecimal digits of a module's classes, config and weights. It is computed
    once for weights that nothing has written to.
    """
    stamp = _stamp(module)
    known = _KNOWN.get(module)
    if stamp is not None and known is not None and known[0] == stamp:
        return known[1]
    digest = hashlib.sha256()
    config = getattr(module, "config", None)
    classes = [(name, type(layer).__qualname__) for name, layer in module.named_modules()]
    about = [classes, dict(config) if config is not None else None]
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    for name, value in sorted(module.state_dict(keep_vars=True).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value.detach()))
    made = digest.hexdigest()
    if stamp is not None:
        _KNOWN[module] = stamp, made
    return made


def _stamp(module: nn.Module) -> Any:
    """Equal while nothing writes to the weights; None where torch does not count that."""
    try:
        return [(value.data_ptr(), value._version) for value in _tensors(module)]
    except RuntimeError:  # tensors of inference mode have no version
        return None


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(value: Tensor) -> Any:
    """The numbers in the order in which they lie, where that is a known one: no copy is made."""
    last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    rows = value.permute(0, 2, 3, 1) if last and not value.is_contiguous() else value
    return rows.contiguous().reshape(-1).view(torch.uint8).cpu().numpy().data


@functools.cache
def code() -> str:
    """A name of the code that graphs are traced through, and of the libraries' versions."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for name in _CODE:
        digest.update((root / name).read_bytes())
    for library in _LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}".encode())
    return digest.hexdigest()


def key_of(engine: Sequence[Any], modules: Sequence[nn.Module], about: Sequence[Any]) -> str:
    """A name of 64 hexadecimal digits for a graph. engine: library, version, processor, settings.
    about: structure, shapes and dtypes.
    """
    parts = [list(engine), code(), [content_of(module) for module in modules], list(about)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
