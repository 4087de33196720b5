"""What a run needs of its pictures, computed once: moments of the latents, states of the captions,
hints.

Three stores of shards, each named by the content it was made from: `hints` (hint, captions, and the
picture where a program made it), `moments` (mean and log-variance; a run draws a new sample of them
every step), `text` (one row a different caption). A run with other learning settings finds them
all; one with more pictures adds what is new.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from zeroconv.backbones import Backbone
from zeroconv.data.cache import waiting
from zeroconv.data.cache.examples import Examples
from zeroconv.data.cache.hints import hint_shards
from zeroconv.data.cache.kept import holds, is_hints, just_written, kept
from zeroconv.data.cache.moments import encode, encoder_key, moments_key
from zeroconv.data.cache.plan import Plan, conditions_of, plan_of, repeats_of
from zeroconv.data.cache.settings import CacheSettings, Progress
from zeroconv.data.cache.text import cache_text
from zeroconv.data.dataset import Dataset
from zeroconv.data.storage.shards import (
    Shard,
    Store,
    default_root,
    remember_sound,
)
from zeroconv.errors import UserError


def cache_hints(
    dataset: Dataset, settings: CacheSettings | None = None, progress: Progress | None = None
) -> int:
    """The part that needs no model: draw hints (and generated pictures) ahead of time, those of
    `settings.rank`'s shards. Returns how many examples.
    """
    settings = settings or CacheSettings()
    plan = plan_of(dataset, settings)[settings.rank :: settings.world]
    for _ in hint_shards(dataset, plan, settings, progress or _silent, needed=lambda shard: False):
        pass
    remember_sound(settings.root or default_root())
    return sum(len(part.indices) for part, _ in plan)


def cache_share(
    dataset: Dataset, backbone: Backbone, settings: CacheSettings, progress: Progress | None = None
) -> int:
    """Hints and moments of `settings.rank`'s shards alone, for caches that machines fill. Returns
    how many examples.
    """
    plan = plan_of(dataset, settings)[settings.rank :: settings.world]
    for _ in _filled(dataset, plan, backbone, settings, progress or _silent):
        pass
    remember_sound(settings.root or default_root())
    return sum(len(part.indices) for part, _ in plan)


def cache_examples(
    dataset: Dataset,
    backbone: Backbone,
    settings: CacheSettings | None = None,
    progress: Progress | None = None,
) -> Examples:
    """Everything of `dataset` (opened with a size and a condition), from the cache where it is
    there.

    Broken pictures are set aside and listed in `Examples.broken`. Of several processes each fills
    its shards, waits for those of the others, and fills what they leave. Raises UserError if no
    picture is left, or the cache cannot be written.
    """
    settings, progress = settings or CacheSettings(), progress or _silent
    root, plan = settings.root or default_root(), plan_of(dataset, settings)
    if settings.world > 1:
        began, share = time.monotonic(), plan[settings.rank :: settings.world]
        for _ in _filled(dataset, share, backbone, settings, progress):
            pass
        took = (time.monotonic() - began) / max(1, len(share))
        keys, encoder = [key for _, key in plan], encoder_key(backbone)
        waiting.wait(
            keys,
            lambda key: _is_filled(root, key, dataset, encoder, settings),
            patience=max(30.0, 3 * took),
        )
    hints, moments = [], []
    for shard, latents in _filled(dataset, plan, backbone, settings, progress):
        hints.append(shard)
        moments.append(latents)
    broken = {name: reason for shard in hints for name, reason in shard.note["broken"].items()}
    if not sum(len(shard.note["text"]) for shard in hints):
        first = next(iter(broken.values()), "there is none")
        raise UserError(f"no picture of the data set can be used; the first: {first}")
    texts = [text for shard in hints for text in shard.note["text"]]
    table = cache_text(
        backbone,
        texts,
        root,
        progress,
        settings.rank,
        settings.world,
        settings.caption_weights,
    )
    parts = [part for part, _ in plan]
    remember_sound(root)
    return Examples.of(
        hints,
        moments,
        texts,
        table,
        broken,
        repeats_of(dataset, parts, hints),
        conditions_of(dataset, parts, hints),
    )


def _filled(
    dataset: Dataset, plan: Plan, backbone: Backbone, settings: CacheSettings, progress: Progress
) -> Iterator[tuple[Shard, Shard]]:
    """Each part's hints and its moments, computed where they are not there."""
    # a transformer reads patches of latents
    unit = backbone.latent_scale * getattr(backbone, "patch", 1)
    if dataset.size is None or (dataset.buckets is None and dataset.size % unit):
        raise UserError(
            f"data.size is {dataset.size}; give a multiple of {unit}, as the base needs."
        )
    store, encoder = Store(settings.root or default_root(), "moments"), encoder_key(backbone)

    def latents_of(shard: Shard) -> Shard | None:
        return kept(
            store,
            moments_key(shard, dataset, encoder, settings),
            holds("moments", shard.note["keys"]),
        )

    for shard, pictures in hint_shards(
        dataset, plan, settings, progress, lambda shard: latents_of(shard) is None
    ):
        if (latents := latents_of(shard)) is None:
            key = moments_key(shard, dataset, encoder, settings)
            store.write(key, encode(backbone, pictures, shard.note["mirrorable"], settings))
            latents = just_written(store, key)
        yield shard, latents


def _is_filled(
    root: Path, key: str, dataset: Dataset, encoder: str, settings: CacheSettings
) -> bool:
    shard = kept(Store(root, "hints"), key, is_hints)
    return shard is not None and Store(root, "moments").has(
        moments_key(shard, dataset, encoder, settings)
    )


def _silent(what: str, done: int, total: int) -> None:
    pass
