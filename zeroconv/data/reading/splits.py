"""Shards of one split: told by their names, or by the folders they lie in."""

from __future__ import annotations

import re
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

from zeroconv.data.fitting import read_patiently
from zeroconv.data.remote.copies import RemoteFolder
from zeroconv.errors import UserError

_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing)(?![a-z])")
_SAME = {
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "testing": "test",
}


def shards_of(
    folder: Path | RemoteFolder,
    kind: str,
    split: str | None,
    config: str | None,
) -> tuple[Any, ...]:
    """The shards of a kind in a folder, its data/, SPLIT/ or CONFIG/SPLIT/; () where there are
    none.

    Raises UserError.
    """

    def there(pattern: str) -> list[Any]:
        shards: list[Any] = read_patiently(lambda: list(folder.glob(f"{pattern}.{kind}")))
        # half written, or of macOS
        shards = [shard for shard in shards if not shard.name.startswith(".")]
        return sorted(shards, key=lambda shard: PurePosixPath(str(shard)).parts)

    for where in ("*", "data/*"):
        if paths := there(where):
            return of_split({path: split_of(path.name) for path in paths}, split, folder)
    splits = {path: path.parent.name for path in there("*/*") if split_of(path.parent.name)}
    if splits:
        return of_split({path: split_of(name) for path, name in splits.items()}, split, folder)
    deep = [path for path in there("*/*/*") if split_of(path.parent.name)]
    configs = sorted({path.parent.parent.name for path in deep})
    config = config or (
        "default" if "default" in configs else configs[0] if len(configs) == 1 else None
    )
    if configs and config not in configs:
        what = f"no part {config!r}" if config else "several parts"
        raise UserError(
            f"{folder} holds {what}; choose with config= in the data spec: {', '.join(configs)}."
        )
    return of_split(
        {p: split_of(p.parent.name) for p in deep if p.parent.parent.name == config}, split, folder
    )


def split_of(name: str) -> str | None:
    """ "train-00000-of-00004.parquet" → train; None where a name says nothing."""
    match = _SPLIT.match(name)
    return None if match is None else _SAME.get(match[1], match[1])


def of_split(shards: dict[Any, str | None], split: str | None, folder: Any) -> tuple[Any, ...]:
    known = sorted({name for name in shards.values() if name})
    if not known:
        if split and shards:
            warnings.warn(
                f"nothing tells the splits of {folder} apart, so all of it is taken for {split}.",
                stacklevel=2,
            )
        return tuple(shards)
    wanted = _SAME.get(split, split) if split else "train" if "train" in known else known[0]
    if wanted not in known:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(known)}.")
    if not split and wanted != "train":
        warnings.warn(
            f"{folder} has no split train, so {wanted} is taken; ?split= chooses.", stacklevel=2
        )
    if nameless := [path.name for path, name in shards.items() if name is None]:
        warnings.warn(
            f"{folder}: {len(nameless)} shards are of no split by their names and are passed over, "
            f"{nameless[0]} the first.",
            stacklevel=2,
        )
    return tuple(path for path, name in shards.items() if name == wanted)
