"""Shards as the cache wants them: there, whole, and of what their key says; else they are made
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zeroconv.data.storage.shards import Shard, Store
from zeroconv.errors import UserError


def kept(store: Store, key: str, sound: Callable[[Shard], bool]) -> Shard | None:
    """None for a shard that is not there, or was damaged, which gets a note."""
    try:
        return store.read(key, sound)
    except KeyError:
        return None


def just_written(store: Store, key: str) -> Shard:
    try:
        return store.read(key)
    except KeyError as error:
        raise UserError(
            f"what is written into the cache {store.root} does not stay: {store.path(key)} is "
            "damaged or gone as soon as it is written; name another place with the recipe's "
            "data.cache or the variable ZEROCONV_CACHE."
        ) from error


def is_hints(shard: Shard) -> bool:
    """Whether it has the notes of a hints shard. One with checksums has; older ones may hold
    anything.
    """
    note = shard.note
    lists = ("keys", "text", "mirrorable")
    return (
        isinstance(note, dict)
        and all(isinstance(note.get(name), list) for name in lists)
        and len({len(note[name]) for name in lists}) == 1
        and isinstance(note.get("broken"), dict)
        and _are_originals(note.get("originals"), len(note["keys"]))
    )


def _are_originals(rows: Any, count: int) -> bool:
    """Four numbers or None an example; shards of older versions have none of these."""

    def is_row(row: Any) -> bool:
        if row is None:
            return True
        return isinstance(row, list) and len(row) == 4 and all(type(side) is int for side in row)

    return rows is None or (
        isinstance(rows, list) and len(rows) == count and all(map(is_row, rows))
    )


def holds(name: str, rows: Sequence[Any]) -> Callable[[Shard], bool]:
    """Whether a shard has an array of that name, a row each."""
    return lambda shard: name in shard.arrays and len(shard.arrays[name]) == len(rows)
