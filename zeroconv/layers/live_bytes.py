"""Counts the memory of a computation's tensors as they come and go; of fake tensors too, which have
none.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """`now`: bytes of the storages that operations have made within it and that are still alive;
    `most`: the most there were. What an allocator rounds up, keeps for itself or lends to a kernel
    is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)
        }
        output = func(*args, **(kwargs or {}))
        for x in tree_leaves(output):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in given:
                self._take(x.untyped_storage())
        return output

    def _take(self, storage: Any) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._give, storage._cdata, storage.nbytes())

    def _give(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
