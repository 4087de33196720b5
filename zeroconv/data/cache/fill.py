"""What a run needs of its pictures, computed once: moments of the latents, states of the captions,
hints.

Three stores of shards, each named by the content it was made from: `hints` (hint, captions, and the
picture where a program made it), `moments` (mean and log-variance; a run draws a new sample of them
every step), `text` (one row a different caption). A run with other learning settings finds them
all; one with more pictures adds what is new.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from zeroconv.backbones import Backbone
from zeroconv.data.buckets import Frame
from zeroconv.data.cache.chunks import chunks
from zeroconv.data.cache.drawing import Drawn, draw_shards
from zeroconv.data.cache.examples import Captions, Examples, TextTable, alike
from zeroconv.data.cache.kept import holds, is_hints, just_written, kept
from zeroconv.data.cache.keys import drawing_key
from zeroconv.data.dataset import Dataset
from zeroconv.data.storage.shards import (
    Rows,
    Shard,
    Store,
    content_key,
    default_root,
    remember_sound,
)
from zeroconv.data.storage.signatures import remembered
from zeroconv.errors import UserError
from zeroconv.files import begin_folder

SHARD = 256  # examples at most; at 512 px 34 MB of moments, at 128 px 4 MB
_NO_PICTURES = np.zeros((0, 8, 8, 3), np.uint8)
FORMAT = 3  # of the shards; a change makes new ones (3: pictures read at their full range)

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class CacheSettings:
    root: Path | None = None  # None: $ZEROCONV_CACHE or ~/.cache/zeroconv
    workers: int | None = None  # processes that draw; None: one a core
    flip: bool = False  # keep the moments of mirrored pictures too
    batch_size: int = 8  # pictures the autoencoder takes at once
    # of `world` processes or machines that share `root`, number `rank` fills every world-th
    # shard first
    rank: int = 0
    world: int = 1


def cache_hints(
    dataset: Dataset, settings: CacheSettings | None = None, progress: Progress | None = None
) -> int:
    """The part that needs no model: draw hints (and generated pictures) ahead of time, those of
    `settings.rank`'s shards. Returns how many examples.
    """
    settings = settings or CacheSettings()
    plan = _plan(dataset, settings)[settings.rank :: settings.world]
    for _ in _hint_shards(dataset, plan, settings, progress or _silent, needed=lambda shard: False):
        pass
    remember_sound(settings.root or default_root())
    return sum(len(part.indices) for part, _ in plan)


def cache_share(
    dataset: Dataset, backbone: Backbone, settings: CacheSettings, progress: Progress | None = None
) -> int:
    """Hints and moments of `settings.rank`'s shards alone, for caches that machines fill. Returns
    how many examples.
    """
    plan = _plan(dataset, settings)[settings.rank :: settings.world]
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
    root, plan = settings.root or default_root(), _plan(dataset, settings)
    if settings.world > 1:
        began, share = time.monotonic(), plan[settings.rank :: settings.world]
        for _ in _filled(dataset, share, backbone, settings, progress):
            pass
        took = (time.monotonic() - began) / max(1, len(share))
        keys, encoder = [key for _, key in plan], encoder_key(backbone)
        _wait(
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
    table = cache_text(backbone, texts, root, progress, settings.rank, settings.world)
    parts = [part for part, _ in plan]
    remember_sound(root)
    return Examples.of(
        hints,
        moments,
        texts,
        table,
        broken,
        _repeats(dataset, parts, hints),
        _conditions(dataset, parts, hints),
    )


def _filled(
    dataset: Dataset, plan: Plan, backbone: Backbone, settings: CacheSettings, progress: Progress
) -> Iterator[tuple[Shard, Shard]]:
    """Each part's hints and its moments, computed where they are not there."""
    if dataset.size is None or (dataset.buckets is None and dataset.size % backbone.latent_scale):
        raise UserError(
            f"data.size is {dataset.size}; give a multiple of {backbone.latent_scale}, as the base "
            "needs."
        )
    store, encoder = Store(settings.root or default_root(), "moments"), encoder_key(backbone)

    def latents_of(shard: Shard) -> Shard | None:
        return kept(
            store,
            _moments_key(shard, dataset, encoder, settings),
            holds("moments", shard.note["keys"]),
        )

    for shard, pictures in _hint_shards(
        dataset, plan, settings, progress, lambda shard: latents_of(shard) is None
    ):
        if (latents := latents_of(shard)) is None:
            key = _moments_key(shard, dataset, encoder, settings)
            store.write(key, _encode(backbone, pictures, shard.note["mirrorable"], settings))
            latents = just_written(store, key)
        yield shard, latents


def _moments_key(shard: Shard, dataset: Dataset, encoder: str, settings: CacheSettings) -> str:
    """The pictures' own, so that two conditions share their moments."""
    mirrors = shard.note["mirrorable"] if settings.flip else None
    return content_key(
        FORMAT, encoder, shard.note.get("frame", dataset.size), shard.note["keys"], mirrors
    )


def _is_filled(
    root: Path, key: str, dataset: Dataset, encoder: str, settings: CacheSettings
) -> bool:
    shard = kept(Store(root, "hints"), key, is_hints)
    return shard is not None and Store(root, "moments").has(
        _moments_key(shard, dataset, encoder, settings)
    )


def _wait(keys: Sequence[str], done: Callable[[str], bool], patience: float) -> None:
    """Until all is done, or nobody has done anything for `patience` seconds."""
    left, since = [key for key in keys if not done(key)], time.monotonic()
    while left and time.monotonic() - since < patience:
        time.sleep(0.5)
        now = [key for key in left if not done(key)]
        since = time.monotonic() if len(now) < len(left) else since
        left = now


# ---------------------------------------------------------------- hints and pictures


@dataclass(frozen=True)
class Part:
    """Examples that share a shard, all of one shape."""

    indices: Sequence[int]
    frame: Frame | None = None  # where it is not the data set's square


# with the keys of their hints: to name a picture its file is looked into
Plan = list[tuple[Part, str]]


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


def _plan(dataset: Dataset, settings: CacheSettings) -> Plan:
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


def _repeats(dataset: Dataset, parts: list[Part], shards: list[Shard]) -> list[int]:
    """How often a pass takes each whole example; nothing where all are taken once."""
    if all(times == 1 for times in dataset.repeats):
        return []
    return [
        dataset.repeat(i)
        for part, shard in zip(parts, shards, strict=True)
        for i in _unbroken(dataset, part.indices, shard)
    ]


def _conditions(
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
        for i in _unbroken(dataset, part.indices, shard)
    ]


def _unbroken(dataset: Dataset, indices: Sequence[int], shard: Shard) -> list[int]:
    """Which examples of a part its shard holds: all but the broken ones."""
    keys = iter([*shard.note["keys"], None])
    if len(shard.note["keys"]) == len(indices):
        return list(indices)
    key, kept = next(keys), []
    for i in indices:
        if dataset.key(i) == key:
            kept.append(i)
            key = next(keys)
    return kept


def _hint_key(dataset: Dataset, part: Part, keys: list[str]) -> str:
    names = [dataset.condition_of(i) for i in part.indices]
    drawn = {name: drawing_key(name) for name in names if name is not None}
    return content_key(FORMAT, part.frame or dataset.size, names, drawn, keys)


def _hint_shards(
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
    if good and all(dataset.generated(i) for i in part.indices):
        arrays["image"] = np.stack([e.image for e in good if e.image is not None])
    names = {
        dataset.name(i): e.broken
        for i, e in zip(part.indices, examples, strict=True)
        if e.broken is not None
    }
    note = {
        "keys": [
            dataset.key(i) for i, e in zip(part.indices, examples, strict=True) if e.broken is None
        ],
        "text": [e.text for e in good],
        "mirrorable": [e.mirrorable for e in good],
        "broken": names,
    }
    if part.frame is not None:
        note["frame"] = part.frame
    store.write(key, arrays, note)


# ---------------------------------------------------------------- moments


def _encode(
    backbone: Backbone, pictures: ndarray | Rows, mirrorable: list[bool], settings: CacheSettings
) -> dict[str, ndarray]:
    """`moments` (N, 2C, h, w) float32, and with `flip` those of the mirrored pictures (where
    mirroring is allowed).
    """
    arrays = {"moments": _moments(backbone, pictures, settings.batch_size)}
    if settings.flip:
        mirrored = arrays["moments"].copy()
        rows = np.flatnonzero(mirrorable)
        if len(rows):
            mirrored[rows] = _moments(backbone, pictures[rows][:, :, ::-1], settings.batch_size)
        arrays["mirrored"] = mirrored
    return arrays


def _moments(backbone: Backbone, pictures: ndarray | Rows, batch_size: int) -> ndarray:
    batches = (pictures[i : i + batch_size] for i in range(0, len(pictures), batch_size))
    parts = [backbone.encode_image(to_images(batch)).float().cpu().numpy() for batch in batches]
    return (
        np.concatenate(parts)
        if parts
        else np.zeros((0, 2 * backbone.latent_channels, 1, 1), np.float32)
    )


def to_images(pictures: ndarray) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, H, W) in [−1, 1]."""
    pixels = torch.from_numpy(np.array(pictures, order="C")).permute(0, 3, 1, 2)
    return pixels.to(torch.float32) / 127.5 - 1


def encoder_key(backbone: Any) -> str:
    """Names the autoencoder's encoder by its weights; the decoder may change without a new
    cache.
    """
    vae = backbone.vae
    parts = [part for part in (vae.encoder, getattr(vae, "quant_conv", None)) if part is not None]
    return weights_key(parts)


def weights_key(modules: Iterable[nn.Module]) -> str:
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            # in the order of their indices, however they lie
            numbers = tensor.detach().cpu().contiguous().flatten()
            digest.update(numbers.view(torch.uint8).numpy().data if tensor.dim() else b"")
    return digest.hexdigest()[:32]


# ---------------------------------------------------------------- text


def cache_text(
    backbone: Any,
    texts: Iterable[Sequence[str]],
    root: Path | None = None,
    progress: Progress | None = None,
    rank: int = 0,
    world: int = 1,
) -> TextTable:
    """States of the empty prompt (row 0) and of every different caption; of `world` processes each
    makes its share.
    """
    unique = list(dict.fromkeys(["", *(caption for variants in texts for caption in variants)]))
    store, encoder = Store(root or default_root(), "text"), text_key(backbone)
    began, progress = time.monotonic(), progress or _silent
    parts = list(chunks(unique, SHARD))
    keys = [content_key(FORMAT, encoder, part) for part in parts]

    def made(number: int) -> Shard:
        shard = kept(store, keys[number], holds("hidden", parts[number]))

        if shard is None:
            states = backbone.embed_text(parts[number])
            tensors = {
                "hidden": states.hidden,
                "pooled": states.pooled,
                "time_ids": states.time_ids,
            }
            arrays = {
                name: part.float().cpu().numpy()
                for name, part in tensors.items()
                if part is not None
            }
            store.write(keys[number], arrays)
            shard = just_written(store, keys[number])

            if time.monotonic() - began > 2:
                progress("captions", sum(map(len, parts[: number + 1])), len(unique))
        return shard

    if world > 1:
        for number in range(rank, len(parts), world):
            made(number)
        _wait(keys, store.has, patience=30)
    return TextTable([made(number) for number in range(len(parts))], Captions.of(unique))


def text_key(backbone: Any) -> str:
    """Names the text encoders by their weights, and the tokenizers by what they make of a
    sentence.
    """
    probe = "A small red ball, 2 cubes & a person's hat on the left; über-bright sky."
    tokens = [
        list(map(int, t(probe, padding="max_length", truncation=True).input_ids))
        for t in backbone.tokenizers
    ]
    return content_key(weights_key(backbone.text_encoders), tokens, backbone.default_size)


def _silent(what: str, done: int, total: int) -> None:
    pass
