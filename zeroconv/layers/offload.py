"""Weights that are on the computing device only while a module of their group runs.

Hooks bring the weights of a group before any of its modules runs, and send those of the group that
ran before it home. Home is main memory where a graphics card computes, and a file where the
processor does: there the memory is the scarce one.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_ALIGNED = 64  # bytes: where a tensor begins in a file, so that vector units read it


class Home(Protocol):
    """Where the weights of one group are while nothing of it runs."""

    def bring(self) -> None:
        """Have them on the device that computes."""

    def drop(self) -> None:
        """Give that memory back."""


class MainMemory:
    """Home of weights that a graphics card computes with: pinned main memory.

    Frozen weights do not change, so nothing is copied back.
    """

    def __init__(self, tensors: Iterable[Tensor], device: torch.device) -> None:
        self.device, self.pairs = device, list[tuple[Tensor, Tensor]]()

        for tensor in tensors:
            kept = tensor.data.to("cpu")
            self.pairs.append((tensor, kept.pin_memory() if device.type == "cuda" else kept))
        self.drop()

    def bring(self) -> None:
        for tensor, kept in self.pairs:
            tensor.data = kept.to(self.device, non_blocking=True)

    def drop(self) -> None:
        for tensor, kept in self.pairs:
            tensor.data = kept


class File:
    """Home of weights that the processor computes with: a nameless temporary file, mapped.

    The system reads a page when it is first used. `drop` gives the pages back (POSIX; on Windows
    the system does so when memory is short).
    """

    def __init__(self, tensors: Iterable[Tensor], device: torch.device) -> None:
        assert device.type == "cpu", device
        tensors = list(tensors)
        self.map, views = _mapped(tensors)
        for tensor, view in zip(tensors, views, strict=True):
            tensor.data = view
        self.drop()

    def bring(self) -> None:
        """Nothing to do: reading a page brings it."""

    def drop(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


class Spill:
    """Weights that go into nameless temporary files one by one while they are read, and the home
    of those weights: `Residency(device, home=spill)`. Other weights get a `File`.
    """

    def __init__(self) -> None:
        self._maps = list[tuple[mmap.mmap, int]]()  # and where in memory each begins

    def take(self, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """The same tensors, mapped from one file. No two need be in memory at once."""
        names = list[str]()

        def tensors() -> Iterator[Tensor]:
            for name, tensor in named:
                names.append(name)
                yield tensor

        made, views = _mapped(tensors())
        self._maps.append((made, torch.frombuffer(made, dtype=torch.uint8).data_ptr()))
        return dict(zip(names, views, strict=True))

    def __call__(self, tensors: Iterable[Tensor], device: torch.device) -> Home:
        tensors = list(tensors)
        parts = [self._part(tensor) for tensor in tensors if tensor.numel()]
        known = [part for part in parts if part is not None]
        return Pages(known) if len(known) == len(parts) else File(tensors, device)

    def _part(self, tensor: Tensor) -> tuple[mmap.mmap, int, int] | None:
        """The map that holds a tensor, its first byte there, and its bytes."""
        for made, begin in self._maps:
            start, size = tensor.data_ptr() - begin, tensor.numel() * tensor.element_size()
            if start >= 0 and start + size <= len(made):
                return made, start, size
        return None


class Pages:
    """Home of weights that are parts of maps of files. Pages are given back as a `File`'s are."""

    def __init__(self, parts: Sequence[tuple[mmap.mmap, int, int]]) -> None:
        self.parts = parts
        self.drop()

    def bring(self) -> None:
        """Nothing to do: reading a page brings it."""

    def drop(self) -> None:
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for made, start, size in self.parts:
            begin = start - start % mmap.PAGESIZE
            made.madvise(mmap.MADV_DONTNEED, begin, start + size - begin)


def _mapped(tensors: Iterable[Tensor]) -> tuple[mmap.mmap, list[Tensor]]:
    """Write tensors into a file without a name, one after the other → its map, and the tensors
    read from it: the same numbers in the same order of memory.
    """
    slots = list[tuple[int, torch.dtype, torch.Size, tuple[int, ...]]]()
    with tempfile.TemporaryFile(prefix="zeroconv-offload-") as file:
        for tensor in tensors:
            file.write(b"\0" * (-file.tell() % _ALIGNED))
            dense = _dense(tensor)
            slots.append((file.tell(), tensor.dtype, tensor.shape, dense.stride()))
            file.write(_bytes(dense))
        file.write(b"\0" * _ALIGNED)  # an empty file cannot be mapped
        file.flush()
        made = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    views = []
    for start, dtype, shape, stride in slots:
        if not shape.numel():
            views.append(torch.empty(shape, dtype=dtype))
            continue
        flat = torch.frombuffer(made, dtype=dtype, count=shape.numel(), offset=start)
        views.append(flat.as_strided(shape, stride))
    return made, views


def _dense(tensor: Tensor) -> Tensor:
    """The numbers in an order of memory without holes; that of channels-last weights stays."""
    data = tensor.data
    span = 1 + sum((n - 1) * s for n, s in zip(data.shape, data.stride(), strict=True))
    return data if span == data.numel() else data.contiguous()


def _bytes(dense: Tensor) -> Any:
    """The numbers in the order in which memory has them."""
    dense = dense.to("cpu")
    flat = dense.as_strided((dense.numel(),), (1,))
    return flat.view(torch.uint8).numpy() if dense.numel() else b""


class Group:
    """Modules whose weights come and go together."""

    def __init__(self, name: str) -> None:
        self.name, self.homes = name, list[Home]()


class Residency:
    """Which group's weights are on the device: one at a time.

    `moves` counts how often each group came: a figure for tests and for reports.
    """

    def __init__(self, device: torch.device, home: Any = None) -> None:
        self.device = device
        self.home = home or (File if device.type == "cpu" else MainMemory)
        self.groups = dict[str, Group]()
        self.active: Group | None = None
        self.moves = dict[str, int]()
        self._known = set[int]()

    def hold(self, name: str, modules: Iterable[nn.Module]) -> None:
        """Take the weights of frozen modules into a group, which is made if it is a new one.

        Weights that another group holds already stay in that one.
        """
        modules = list(modules)
        group = self.groups.setdefault(name, Group(name))
        fresh = [t for t in _tensors(modules) if id(t) not in self._known]
        self._known.update(map(id, fresh))

        with torch.inference_mode(False), torch.no_grad():
            if fresh:
                group.homes.append(self.home(fresh, self.device))
                if self.active is group:
                    group.homes[-1].bring()

        taken = {id(tensor) for tensor in fresh}
        for part in {id(part): part for module in modules for part in module.modules()}.values():
            if any(id(tensor) in taken for tensor in _tensors([part])):
                part.register_forward_pre_hook(lambda *_: self.enter(name))

    def enter(self, name: str) -> None:
        """Have a group's weights on the device, and those of the one before it at home."""
        group = self.groups.get(name)
        if group is None or group is self.active:
            return
        # tensors made in inference mode cannot become a parameter's data
        with torch.inference_mode(False), torch.no_grad():
            self.leave()
            for home in group.homes:
                home.bring()
        self.active = group
        self.moves[name] = self.moves.get(name, 0) + 1

    def forget(self, name: str) -> None:
        """Let go of a group, whose modules nobody runs any more."""
        group = self.groups.pop(name, None)
        if group is not None and group is self.active:
            self.leave()

    def leave(self) -> None:
        """Send home what is on the device."""
        for home in self.active.homes if self.active is not None else ():
            home.drop()
        self.active = None


def _tensors(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters and buffers, each once."""
    seen = set()
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor
