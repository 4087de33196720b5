"""Modules whose parameters have shapes and no memory, made in one thread while others make their
own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_NAME = "register_parameter"  # of nn.Module, which every new parameter passes
_here = threading.local()  # depth: how many `unfilled` this thread is inside of
_lock = threading.Lock()
_inside = 0  # how many all threads are inside of
_plain: Any = None  # nn.Module's own method, once it was replaced


@contextmanager
def unfilled() -> Iterator[None]:
    """Inside, in this thread, parameters of new modules are on the meta device; buffers are not.

    accelerate's `init_empty_weights` is for a program of one thread: what another thread makes
    meanwhile loses its weights, and of two at once the last one leaves it switched on.
    """
    global _inside, _plain
    with _lock:
        _inside += 1
        if _inside == 1:
            _plain = getattr(nn.Module, _NAME)
            setattr(nn.Module, _NAME, _register)
    _here.depth = _depth() + 1
    try:
        yield
    finally:
        _here.depth -= 1
        with _lock:
            _inside -= 1
            if _inside == 0:
                setattr(nn.Module, _NAME, _plain)


def _depth() -> int:
    return vars(_here).get("depth", 0)


def _register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
    _plain(module, name, param)
    if param is not None and _depth():
        kept = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        module._parameters[name] = kept
