"""Shards of hints: hint, captions, and the picture where a program made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import ndarray

from zeroconv.data.cache.drawing import Drawn, draw_shards
from zeroconv.data.cache.examples import alike
from zeroconv.data.cache.kept import is_hints, just_written, kept
from zeroconv.data.cache.plan import Part, Plan
from zeroconv.data.cache.settings import CacheSettings, Progress
from zeroconv.data.dataset import Dataset
from zeroconv.data.storage.shards import Rows, Shard, Store, default_root

_NO_PICTURES = np.zeros((0, 8, 8, 3), np.uint8)


def hint_shards(
    dataset: Dataset,
    plan: Plan,
    settings: CacheSettings,
    progress: Progress,
    needed: Callable[[Shard], bool],
) -> Iterator[tuple[Shard, ndarray | Rows]]:
    """Each part's shard, and its pictures (N, H, W, 3) uint8: none where the caller has not
    `needed` them.
    """
    store = Store(settings.root or default_root(), "hints")
    missing: dict[int, Part] = {}
    ready: dict[int, Shard] = {}

    for number, (part, key) in enumerate(plan):
        shard = kept(store, key, is_hints)
        if shard is None or (needed(shard) and "image" not in shard.arrays and shard.note["text"]):
            missing[number] = part
        else:
            ready[number] = shard

    drawn = draw_shards(dataset, [part.indices for part in missing.values()], settings.workers)
    done, total = 0, sum(len(part.indices) for part in missing.values())

    for number, (part, key) in enumerate(plan):
        if number not in missing:
            shard = ready.pop(number)
            yield shard, shard.arrays.get("image", _NO_PICTURES)
            continue

        examples = next(drawn)
        # where its pictures alone were needed, or another process made it
        made = kept(store, key, is_hints)
        if made is None:
            _write_hints(store, key, dataset, part, examples)
            made = just_written(store, key)

        done += len(part.indices)
        progress("pictures", done, total)
        images = [e.image for e in examples if e.image is not None]
        yield made, np.stack(images) if images else _NO_PICTURES


def _write_hints(
    store: Store, key: str, dataset: Dataset, part: Part, examples: list[Drawn]
) -> None:
    good = [e for e in examples if e.broken is None]
    arrays: dict[str, ndarray] = {}
    hints = [e.hint for e in good if e.hint is not None]
    if hints:
        arrays["hint"] = np.stack(alike(hints))
    if dataset.masks is not None and good:
        # without a mask all of a picture counts
        images = [e.image for e in good if e.image is not None]
        whole = np.full(images[0].shape[:2], 255, np.uint8)
        arrays["mask"] = np.stack([whole if e.mask is None else e.mask for e in good])
    if good and all(dataset.generated(i) for i in part.indices):
        arrays["image"] = np.stack([e.image for e in good if e.image is not None])
    names = {
        dataset.name(i): e.broken
        for i, e in zip(part.indices, examples, strict=True)
        if e.broken is not None
    }
    note: dict[str, Any] = {
        "keys": [
            dataset.key(i) for i, e in zip(part.indices, examples, strict=True) if e.broken is None
        ],
        "text": [e.text for e in good],
        "mirrorable": [e.mirrorable for e in good],
        "broken": names,
        "originals": [e.original for e in good],
    }
    if dataset.masks is not None:
        note["unmasked"] = [e.mask is None for e in good]
    if part.frame is not None:
        note["frame"] = part.frame
    store.write(key, arrays, note)
