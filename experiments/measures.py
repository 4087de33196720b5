"""Figures of single pictures that several experiments ask for; `evaluation.metrics` makes intervals
of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv import playroom
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.scores import METRICS
from zeroconv.evaluation import distribution, reader
from zeroconv.evaluation.adherence import known_colours, named_right
from zeroconv.evaluation.metrics import paired_interval, rgb_to_lab, summarise
from zeroconv.evaluation.pairs import Pair
from zeroconv.evaluation.reading import make_read

SHOWN = 60  # pixels that must show of an object before it is asked for


def fidelity(
    condition: str, pairs: Sequence[Pair], images: Sequence[Image.Image], metric: str
) -> list[Any]:
    """What each picture contributes to `metric`, read back as `zeroconv evaluate` does."""
    read, _ = make_read(condition)
    score = CONDITIONS[condition].score
    return [score(p.truth, reading)[metric] for p, reading in zip(pairs, read(images), strict=True)]


def shuffled(pairs: Sequence[Pair]) -> list[Pair]:
    """Every picture asked for the next one's hint: what pictures of this world share anyway."""
    return [*pairs[1:], *pairs[:1]]


def figure(stats: Sequence[Any], metric: str) -> dict[str, float]:
    """Mean and 95% interval of a metric."""
    return summarise(list(stats), METRICS[metric].kind)


def better_by(a: Sequence[Any], b: Sequence[Any], metric: str) -> dict[str, float]:
    """By how much `a` is better than `b`, of the same pictures, resampled together; above 0
    whichever way it runs.
    """
    first, second = (a, b) if METRICS[metric].better == "higher" else (b, a)
    return paired_interval(list(first), list(second), METRICS[metric].kind)


def scenes_of(pairs: Sequence[Pair]) -> list[playroom.Scene]:
    """The scenes behind pairs of the playroom, whose names hold their seeds."""
    return [
        playroom.render(int(pair.name.removeprefix("scene-")), pair.image.width) for pair in pairs
    ]


def kinds_right(
    images: Sequence[Image.Image], scenes: Sequence[playroom.Scene], only: str = ""
) -> list[ndarray]:
    """For each picture (2, 1): how many of the scene's objects the reader takes for what they are,
    and how many there are. An object counts if it shows enough pixels; the reader's majority over
    those pixels decides.
    """
    segmentations = reader.read(images).segmentation
    stats = []
    for classes, scene in zip(segmentations, scenes, strict=True):
        right = asked = 0
        for number, thing in enumerate(scene.objects, start=1):
            mask = scene.instances == number
            if mask.sum() < SHOWN or (only and thing.kind != only):
                continue
            asked += 1
            right += (
                playroom.CLASSES[int(np.bincount(classes[mask], minlength=7).argmax())]
                == thing.kind
            )
        stats.append(np.array([[right], [asked]], np.float64))
    return stats


def colours_right(images: Sequence[Image.Image], scenes: Sequence[playroom.Scene]) -> list[ndarray]:
    """For each picture (2, 1): how many of the colours that the caption names are there, and how
    many it names.
    """
    known = known_colours(images[0].width)
    stats = []
    for image, scene in zip(images, scenes, strict=True):
        right = [value for values in named_right(image, scene, known).values() for value in values]
        stats.append(np.array([[sum(right)], [len(right)]], np.float64))
    return stats


def likeness(images: Sequence[Image.Image], real: Sequence[Image.Image]) -> dict[str, float]:
    """KID in the reader's features, with its interval; NaN where there are too few pictures for
    one.
    """
    if min(len(images), len(real)) < 4:
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    made, truth = (reader.read(part).features for part in (images, real))
    return distribution.bootstrap(distribution.kernel_distance, made, truth, draws=50)


def tones(image: Image.Image) -> dict[str, float]:
    """contrast: spread of CIELAB lightness; saturation: mean CIELAB chroma; clipped: share of
    pixels with a channel at its end (below 3 or above 252).
    """
    pixels = np.asarray(image.convert("RGB"))
    lab = rgb_to_lab(pixels)
    clipped = ((pixels < 3) | (pixels > 252)).any(axis=-1)
    return {
        "contrast": float(lab[..., 0].std()),
        "saturation": float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        "clipped": float(clipped.mean()),
    }


def ratio(stats: Sequence[ndarray]) -> dict[str, float]:
    """Share and interval of (2, 1) counts."""
    return summarise(list(stats), "ratio")


def ratio_apart(a: Sequence[ndarray], b: Sequence[ndarray]) -> dict[str, float]:
    """Share of `a` minus share of `b`, of the same pictures, and its interval."""
    return paired_interval(list(a), list(b), "ratio")
