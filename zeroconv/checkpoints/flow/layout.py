"""Renaming where one module of the original layout holds the rows of several of diffusers' (query,
key and value in one matrix), or its halves in the other order.

Names that a table does not have stay as they are: most of them are the same in both layouts, and
the check against the network names those that nothing reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroconv.errors import UserError

State = dict[str, Tensor]
Ranges = tuple[tuple[int, int], ...]  # of rows, from and to


@dataclass(frozen=True)
class Joined:
    """Modules of diffusers whose rows stand below one another in one module of the original.

    rows: of each; None: as many each. swapped: the two halves of the rows change places.
    """

    modules: tuple[str, ...]
    rows: tuple[int, ...] | None = None
    swapped: bool = False

    def ranges(self, total: int) -> list[Ranges]:
        """The rows of each module among `total`, in diffusers' order."""
        if self.swapped:
            return [((total // 2, total), (0, total // 2))]
        counts = self.rows or (total // len(self.modules),) * len(self.modules)
        ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        if ends[-1] != total or min(counts) < 1:
            raise ValueError(f"{total} rows for {' + '.join(map(str, counts))}")
        return [((end - count, end),) for end, count in zip(ends, counts, strict=True)]


Table = dict[str, Joined]  # by the original's module


def one(module: str) -> Joined:
    return Joined((module,))


def from_original(state: Mapping[str, Tensor], table: Table, where: object) -> State:
    """Tensors under diffusers' names. Raises UserError for one whose rows cannot be divided."""
    renamed: State = {}
    for key, value in state.items():
        module = owner(key, table)
        if module is None:
            renamed[key] = value
            continue
        joined, rest = table[module], key[len(module) :]
        try:
            ranges = joined.ranges(value.shape[0])
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{where}: tensor {key[:100]} has shape {list(value.shape)}, which divides into no "
                f"{len(joined.modules)} parts; the file is damaged."
            ) from error
        for name, rows in zip(joined.modules, ranges, strict=True):
            renamed[name + rest] = taken(value, rows)
    return renamed


def to_original(state: Mapping[str, Tensor], table: Table) -> State:
    """The inverse of `from_original`."""
    places = {name: (key, i) for key, j in table.items() for i, name in enumerate(j.modules)}
    renamed: State = {}
    parts: dict[tuple[str, str], dict[int, Tensor]] = {}
    for key, value in state.items():
        module = owner(key, places)
        if module is None:
            renamed[key] = value
            continue
        original, number = places[module]
        parts.setdefault((original, key[len(module) :]), {})[number] = value
    for (original, rest), tensors in parts.items():
        value = torch.cat([tensors[i] for i in sorted(tensors)]) if len(tensors) > 1 else tensors[0]
        if table[original].swapped:
            value = torch.cat(value.chunk(2)[::-1])
        renamed[original + rest] = value
    return renamed


def taken(value: Tensor, rows: Ranges) -> Tensor:
    """Rows of a tensor: a view where they are one range."""
    parts = [value[start:stop] for start, stop in rows]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def owner(key: str, names: Mapping[str, object]) -> str | None:
    """The longest of the names that is the key, or stands before a dot in it."""
    module = key
    while module and module not in names:
        module = module.rpartition(".")[0]
    return module or None


def count(names: Iterable[str], start: str) -> int:
    """How many numbers stand behind `start`, as in `double_blocks.0.`: the largest and one."""
    numbers = (name[len(start) :].split(".", 1)[0] for name in names if name.startswith(start))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
