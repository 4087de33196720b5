"""Tensors that are cut up over processes (torch's `DTensor`) and whole ones: from one to the other
and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

BUNCH = 2**24  # numbers that are sent at once, 64 MiB of float32


@torch.no_grad()
def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its part of one that is cut up (the same memory), else
    all of it.
    """
    return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor


def joined(part: Tensor, like: DTensor) -> DTensor:
    """The tensor of which every process holds such a part, cut up as `like` is."""
    layout = (like.device_mesh, like.placements)
    return DTensor.from_local(
        part, *layout, run_check=False, shape=like.shape, stride=like.stride()
    )


def part_of(tensor: Tensor, like: DTensor) -> Tensor:
    """This process's part of a whole tensor (on any device) that is to be cut up as `like` is.

    A copy, one row after the other: a part that lay in the whole tensor's memory would keep all of
    that.
    """
    parts, rank = tensor.chunk(like.device_mesh.size()), like.device_mesh.get_local_rank()
    part = parts[rank] if rank < len(parts) else tensor[:0]  # fewer rows than processes
    return torch.empty(part.shape, dtype=tensor.dtype, device=like.device).copy_(part)


@torch.no_grad()
def put_together(state: Any) -> Any:
    """A state (tensors in dicts and lists) with everything that is cut up put together, on the CPU
    of the first process; the others get None in place of such tensors.

    All processes must call it with the same state, as each has something to give.
    """
    gathered: dict[int, Tensor | None] = {}
    for some in _bunches(_cut_up(state)):
        gathered.update(zip(map(id, some), _gathered(some), strict=True))

    def put(value: Any) -> Any:
        if isinstance(value, DTensor):
            return gathered[id(value)]
        if isinstance(value, dict):
            return {name: put(inner) for name, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    return put(state)


def _cut_up(value: Any) -> Iterator[DTensor]:
    if isinstance(value, DTensor):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _cut_up(inner)


def _bunches(tensors: Iterable[DTensor]) -> Iterator[list[DTensor]]:
    """Tensors of one dtype that are sent at once: a thousand small messages would take longer than
    their numbers.
    """
    some: list[DTensor] = []
    size = 0
    for tensor in tensors:
        if some and (size + tensor.numel() > BUNCH or tensor.dtype != some[0].dtype):
            yield some
            some, size = [], 0
        some.append(tensor)
        size += tensor.numel()
    if some:
        yield some


def _gathered(tensors: list[DTensor]) -> list[Tensor | None]:
    """The whole tensors, on the CPU of the first process."""
    mesh, shapes = tensors[0].device_mesh, [tensor.shape for tensor in tensors]
    n, first = mesh.size(), mesh.get_local_rank() == 0
    # of the largest part; the last ones may be smaller, or nothing
    rows = [-(-shape[0] // n) for shape in shapes]
    sizes = [r * math.prod(shape[1:]) for r, shape in zip(rows, shapes, strict=True)]
    local = tensors[0].to_local().new_zeros(sum(sizes))
    for tensor, room in zip(tensors, local.split(sizes), strict=True):
        part = tensor.to_local().flatten()
        room[: len(part)] = part
    parts = [torch.empty_like(local) for _ in range(n)] if first else None
    torch.distributed.gather(local, parts, dst=0, group=mesh.get_group())
    if parts is None:
        return [None] * len(tensors)
    pieces = zip(*(part.cpu().split(sizes) for part in parts), strict=True)
    return [
        torch.cat([p.view(r, *shape[1:]) for p in piece])[: shape[0]].clone()
        for piece, r, shape in zip(pieces, rows, shapes, strict=True)
    ]


def cut(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The opposite, for a module: of its whole tensors this process's parts, wherever its own,
    `like`, are cut up.
    """
    return {
        name: joined(part_of(value, held), held)
        if isinstance(held := like.get(name), DTensor)
        else value
        for name, value in state.items()
    }


@torch.no_grad()
def clip_(gradients: Iterable[Tensor | None], most: float) -> float:
    """Scale this process's parts of gradients so that the norm of all processes' parts together is
    at most `most`; returns what it was.
    """
    parts = [gradient for gradient in gradients if gradient is not None]
    square = torch.stack(torch._foreach_norm(parts)).square().sum()
    torch.distributed.all_reduce(square)
    norm = square.sqrt()
    torch._foreach_mul_(parts, (most / (norm + 1e-6)).clamp_max(1.0))
    return float(norm)
