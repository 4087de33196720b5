"""What a run needs of its pictures, computed once: moments of the latents, states of the captions,
hints.

Four stores of shards, each named by the content it was made from: `hints` (hint, captions, and the
picture where a program made it), `moments` (mean and log-variance; a run draws a new sample of them
every step), `hint_latents` (hints as controls of transformers read them), `text` (one row a
different caption). A run with other learning settings finds them
all; one with more pictures adds what is new.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from zeroconv.backbones import Backbone
from zeroconv.data.cache import waiting
from zeroconv.data.cache.examples import Examples
from zeroconv.data.cache.hint_latents import HintEncoder, hint_latents, latents_key
from zeroconv.data.cache.hints import hint_shards
from zeroconv.data.cache.kept import holds, is_hints, just_written, kept
from zeroconv.data.cache.moments import encode, encoder_key, moments_key
from zeroconv.data.cache.plan import Plan, conditions_of, plan_of, repeats_of, unbroken
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
    dataset: Dataset,
    backbone: Backbone,
    settings: CacheSettings,
    progress: Progress | None = None,
    encoder: HintEncoder | None = None,
) -> int:
    """Hints, moments, and with `encoder` hints' latents, of `settings.rank`'s shards alone, for
    caches that machines fill. Returns how many examples.
    """
    plan = plan_of(dataset, settings)[settings.rank :: settings.world]
    for _ in _filled(dataset, plan, backbone, settings, progress or _silent, encoder):
        pass
    remember_sound(settings.root or default_root())
    return sum(len(part.indices) for part, _ in plan)


def cache_examples(
    dataset: Dataset,
    backbone: Backbone,
    settings: CacheSettings | None = None,
    progress: Progress | None = None,
    encoder: HintEncoder | None = None,
) -> Examples:
    """Everything of `dataset` (opened with a size and a condition), from the cache where it is
    there.

    Broken pictures are set aside and listed in `Examples.broken`. Of several processes each fills
    its shards, waits for those of the others, and fills what they leave. encoder: of a control that
    reads hints as latents. Raises UserError if no
    picture is left, or the cache cannot be written.
    """
    settings, progress = settings or CacheSettings(), progress or _silent
    root, plan = settings.root or default_root(), plan_of(dataset, settings)
    if settings.world > 1:
        began, share = time.monotonic(), plan[settings.rank :: settings.world]
        for _ in _filled(dataset, share, backbone, settings, progress, encoder):
            pass
        took = (time.monotonic() - began) / max(1, len(share))
        keys, vae = [key for _, key in plan], encoder_key(backbone)
        waiting.wait(
            keys,
            lambda key: _is_filled(root, key, dataset, vae, settings, encoder),
            patience=max(30.0, 3 * took),
        )
    hints, moments, read = [], [], []
    for shard, latents, read_shard in _filled(dataset, plan, backbone, settings, progress, encoder):
        hints.append(shard)
        moments.append(latents)
        read += [] if read_shard is None else [read_shard]
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
        read,
    )


def _filled(
    dataset: Dataset,
    plan: Plan,
    backbone: Backbone,
    settings: CacheSettings,
    progress: Progress,
    hint_encoder: HintEncoder | None = None,
) -> Iterator[tuple[Shard, Shard, Shard | None]]:
    """Each part's hints, its moments, and its hints' latents where a control reads those, computed
    where they are not there.
    """
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

    drawn = hint_shards(dataset, plan, settings, progress, lambda shard: latents_of(shard) is None)
    for (part, hints_key), (shard, pictures) in zip(plan, drawn, strict=True):
        if (latents := latents_of(shard)) is None:
            key = moments_key(shard, dataset, encoder, settings)
            store.write(key, encode(backbone, pictures, shard.note["mirrorable"], settings))
            latents = just_written(store, key)
        read = None
        if hint_encoder is not None and "hint" in shard.arrays:
            names = [dataset.condition_of(i) for i in unbroken(dataset, part.indices, shard)]
            read = hint_latents(store.root, hints_key, shard, names, hint_encoder, settings)
        yield shard, latents, read


def _is_filled(
    root: Path,
    key: str,
    dataset: Dataset,
    vae: str,
    settings: CacheSettings,
    encoder: HintEncoder | None,
) -> bool:
    shard = kept(Store(root, "hints"), key, is_hints)
    if shard is None or not Store(root, "moments").has(moments_key(shard, dataset, vae, settings)):
        return False
    if encoder is None or "hint" not in shard.arrays:
        return True
    return Store(root, "hint_latents").has(latents_key(key, encoder, settings))


def _silent(what: str, done: int, total: int) -> None:
    pass
