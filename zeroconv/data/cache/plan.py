"""The data set cut into shards, each named by the content it is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroconv.data.buckets import Frame
from zeroconv.data.cache.chunks import chunks
from zeroconv.data.cache.keys import drawing_key
from zeroconv.data.cache.settings import FORMAT, SHARD, CacheSettings
from zeroconv.data.dataset import Dataset
from zeroconv.data.storage.shards import Shard, content_key, default_root
from zeroconv.data.storage.signatures import remembered
from zeroconv.files import begin_folder


@dataclass(frozen=True)
class Part:
    """Examples that share a shard, all of one shape."""

    indices: Sequence[int]
    frame: Frame | None = None  # where it is not the data set's square


# with the keys of their hints: to name a picture its file is looked into
Plan = list[tuple[Part, str]]


def plan_of(dataset: Dataset, settings: CacheSettings) -> Plan:
    """The data set in shards. A picture more, or one less, changes the shard it is in and leaves
    the others as they are, wherever in the data set it stands.
    """
    if settings.root is not None:
        begin_folder(settings.root, "a cache", lambda root: any(root.glob("*/??/*.safetensors")))
    plan: Plan = []
    with remembered(settings.root or default_root()):
        for frame, indices in _shapes(dataset):
            start = 0
            for keys in chunks((dataset.key(i) for i in indices), SHARD):
                part = Part(indices[start : start + len(keys)], frame)
                plan.append((part, _hint_key(dataset, part, keys)))
                start += len(keys)
    return plan


def _shapes(dataset: Dataset) -> list[tuple[Frame | None, Sequence[int]]]:
    """Frames and their examples: one square and all; with buckets, one shape after the other."""
    if dataset.buckets is None:
        return [(None, range(len(dataset)))]
    square = (dataset.buckets.size, dataset.buckets.size)
    shapes: dict[Frame, list[int]] = {}
    for i in range(len(dataset)):
        shapes.setdefault(dataset.frame(i) or square, []).append(i)
    return [
        (None if frame == square else frame, tuple(indices))
        for frame, indices in sorted(shapes.items())
    ]


def _hint_key(dataset: Dataset, part: Part, keys: list[str]) -> str:
    names = [dataset.condition_of(i) for i in part.indices]
    drawn = {name: drawing_key(name) for name in names if name is not None}
    masks = [] if dataset.masks is None else [f"masks: {dataset.masks}"]
    return content_key(FORMAT, part.frame or dataset.size, names, drawn, keys, *masks)


def repeats_of(dataset: Dataset, parts: list[Part], shards: list[Shard]) -> list[int]:
    """How often a pass takes each whole example; nothing where all are taken once."""
    if all(times == 1 for times in dataset.repeats):
        return []
    return [
        dataset.repeat(i)
        for part, shard in zip(parts, shards, strict=True)
        for i in unbroken(dataset, part.indices, shard)
    ]


def conditions_of(
    dataset: Dataset, parts: list[Part], shards: list[Shard]
) -> list[str | None] | None:
    """What the hint of each whole example is of; None where all are of the data set's own
    condition.
    """
    if all(source.condition in (None, dataset.condition) for source in dataset.sources):
        return None
    return [
        dataset.condition_of(i)
        for part, shard in zip(parts, shards, strict=True)
        for i in unbroken(dataset, part.indices, shard)
    ]


def unbroken(dataset: Dataset, indices: Sequence[int], shard: Shard) -> list[int]:
    """Which examples of a part its shard holds: all but the broken ones."""
    keys = iter([*shard.note["keys"], None])
    if len(shard.note["keys"]) == len(indices):
        return list(indices)
    key, unbroken = next(keys), []
    for i in indices:
        if dataset.key(i) == key:
            unbroken.append(i)
            key = next(keys)
    return unbroken
