"""Two other renderings of a playroom scene, for community models to learn: a pencil drawing, and
the room at night.

Only light and medium change. Every surface stays where it is, so the hints of the plain scene stay
exact.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.errors import UserError
from zeroconv.playroom.captions import caption_of
from zeroconv.playroom.primitives import vector
from zeroconv.playroom.renderer import Camera, Hits, Part, cast, parts_of, shade
from zeroconv.playroom.scene import SIZES
from zeroconv.playroom.world import SceneSpec, sample_scene

SAMPLES = 2  # rays a pixel and axis, as in the plain rendering

PAPER = vector([0.965, 0.955, 0.935])
GRAPHITE = vector([0.16, 0.16, 0.17])

LAMP = vector([1.0, 0.70, 0.36])
SKY = vector([0.14, 0.20, 0.42])  # what comes in from everywhere
MOON = vector([0.20, 0.34, 0.62])


def style_image(seed: int, style: str, size: int = 128) -> tuple[ndarray, str]:
    """The picture (size, size, 3) uint8 of a scene in a style of `STYLES`, and the scene's own
    caption; f(seed).

    Raises UserError for an unknown style or another size than the playroom's.
    """
    if size not in SIZES:
        raise UserError(
            f"Playroom scenes are drawn at {', '.join(map(str, SIZES))} pixels, not {size}."
        )
    spec = sample_scene(seed)
    return draw_style(spec, find_style(style), size), caption_of(spec)


def find_style(style: str) -> str:
    """The style itself. Raises UserError where there is none of that name."""
    if style not in STYLES:
        raise UserError(f"the playroom has no style {style!r}; choose from {', '.join(STYLES)}.")
    return style


def draw_style(spec: SceneSpec, style: str, size: int) -> ndarray:
    """The picture (size, size, 3) uint8, cast at `SAMPLES`² rays a pixel and averaged."""
    camera, (parts, _) = Camera.of(spec), parts_of(spec)
    hits = cast(spec, parts, camera, size * SAMPLES)
    colour = np.clip(STYLES[style](spec, hits, parts, camera), 0, 1)
    mean = colour.reshape(size, SAMPLES, size, SAMPLES, 3).mean(axis=(1, 3))
    return (mean * 255 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------- pencil


def pencil(spec: SceneSpec, hits: Hits, parts: list[Part], camera: Camera) -> ndarray:
    """Graphite on paper (S, S, 3) in 0–1: outlines where the geometry has them, hatching where the
    picture is dark.
    """
    rng = np.random.default_rng([spec.seed, 31])
    size = hits.depth.shape[0]
    unit = size / 128  # lines keep their share of the frame
    luminance = shade(spec, hits, parts, camera).clip(0, 1) @ vector([0.30, 0.59, 0.11])
    # as draughtsmen do: things are worked out, the room behind them is left light
    tone = (1 - luminance) * np.where(hits.instance > 0, 0.82, np.where(hits.wall, 0.35, 0.55))
    tone = cv2.GaussianBlur(tone, (0, 0), 0.5 * unit)
    graphite = _hatched(tone, unit, 0.35 * _clouds(rng, size, 8 * unit)) * (
        1 + 0.06 * _clouds(rng, size, 3 * unit)
    )
    pressure = 1 + 0.22 * _clouds(rng, size, 9 * unit)  # the hand presses now more, now less
    strong, faint = (_lines(edge, unit) for edge in (_contours(hits), _seams(hits)))
    graphite = 1 - (1 - graphite.clip(0, 0.95)) * (1 - (0.95 * strong * pressure).clip(0, 1)) * (
        1 - (0.30 * faint * pressure).clip(0, 1)
    )
    grain = 1 + 0.012 * _clouds(rng, size, 1.2 * unit)
    return (PAPER * grain[..., None]) * (1 - graphite[..., None]) + GRAPHITE * graphite[..., None]


def _hatched(tone: ndarray, unit: float, waver: ndarray) -> ndarray:
    """Tone (S, S) as steep diagonal strokes of a hand that wavers; their mean stays the tone. Black
    is filled in.
    """
    y, x = np.mgrid[: tone.shape[0], : tone.shape[1]].astype(np.float32) / np.float32(unit)
    strokes = np.sin((1.2 * x + 0.7 * y) * np.float32(2 * np.pi / 14) + waver)
    return tone * (1 + 0.26 * np.clip((1 - tone) / 0.5, 0, 1) * strokes)


def _contours(hits: Hits) -> ndarray:
    """Where things, wall and floor part, or a thing has a crease or covers itself: (S, S) float32 0
    or 1.
    """
    within = hits.instance > 0
    thing = np.where(within, hits.instance + np.int16(2), hits.wall)
    edge = np.zeros(thing.shape, bool)
    for axis in (0, 1):
        here, there = _pair(axis)
        jump = thing[here] != thing[there]
        both = within[here] & within[there]
        jump |= both & (np.abs(np.diff(hits.depth, axis=axis)) > 0.06)
        jump |= both & ((hits.normal[here] * hits.normal[there]).sum(-1) < 0.6)
        edge[here] |= jump
    return edge.astype(np.float32)


def _seams(hits: Hits) -> ndarray:
    """Where a surface changes its colour: planks, tiles, stripes, clothes."""
    edge = np.zeros(hits.depth.shape, bool)
    for axis in (0, 1):
        here, there = _pair(axis)
        same = (hits.instance[here] == hits.instance[there]) & (hits.wall[here] == hits.wall[there])
        edge[here] |= same & (np.abs(hits.colour[here] - hits.colour[there]).max(-1) > 0.03)
    return edge.astype(np.float32)


def _pair(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Every pixel but the last along `axis`, and its neighbour."""
    here, there = [slice(None), slice(None)], [slice(None), slice(None)]
    here[axis], there[axis] = slice(0, -1), slice(1, None)
    return tuple(here), tuple(there)


def _lines(edge: ndarray, unit: float) -> ndarray:
    """A soft stroke of about two pixels of 128 around one-pixel edges, 0–1: the autoencoder loses
    thinner ones.
    """
    return np.minimum(1, cv2.GaussianBlur(edge, (0, 0), 0.6 * unit) * 2.4 * unit)


def _clouds(rng: np.random.Generator, size: int, scale: float) -> ndarray:
    """Smooth noise (S, S), mean 0, spread 1, with features of `scale` pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size), dtype=np.float32), (0, 0), scale)
    return (noise - noise.mean()) / max(1e-6, float(noise.std()))


# ---------------------------------------------------------------- night


def night(spec: SceneSpec, hits: Hits, parts: list[Part], camera: Camera) -> ndarray:
    """The room by one warm lamp (S, S, 3) in 0–1: light falls off with distance, what it misses
    lies in blue dusk, and moonlight comes through a window onto the wall.
    """
    rng = np.random.default_rng([spec.seed, 32])
    side = 1.0 if rng.random() < 0.5 else -1.0
    lamp = vector([side * rng.uniform(0.9, 1.7), rng.uniform(1.5, 2.3), rng.uniform(2.2, 3.0)])
    way = lamp - hits.point
    distance = np.linalg.norm(way, axis=-1)
    way /= distance[..., None]
    lit = np.maximum((hits.normal * way).sum(-1), 0) / (0.35 + 0.22 * distance**2)
    lit[_hidden_from(hits, parts, lamp) & (lit > 0)] = 0
    # a lamp has a size: soft borders
    lit = cv2.GaussianBlur(lit, (0, 0), hits.depth.shape[0] / 256)
    upward = (0.75 + 0.25 * hits.normal[..., 1])[..., None]
    light = (
        SKY * upward
        + 1.25 * LAMP * lit[..., None]
        + MOON * _window(rng, spec, hits, -side)[..., None]
    )
    colour = hits.colour * light
    shiny = hits.shiny & (lit > 0.05)
    if shiny.any():
        view = camera.position - hits.point[shiny]
        half = view / np.linalg.norm(view, axis=-1, keepdims=True) + way[shiny]
        half /= np.linalg.norm(half, axis=-1, keepdims=True)
        colour[shiny] += (
            0.5 * LAMP * np.maximum((half * hits.normal[shiny]).sum(-1, keepdims=True), 0) ** 24
        )
    return 1 - np.exp(-1.35 * colour)  # film: highlights roll off


def _hidden_from(hits: Hits, parts: list[Part], lamp: ndarray) -> ndarray:
    """Where something stands between a point and the lamp: (S, S) bool."""
    points = (hits.point + hits.normal * np.float32(0.004)).reshape(-1, 3)
    way = lamp - points
    hidden = np.zeros(len(points), bool)
    for part in parts:
        centre, radius = part.primitive.bounds()
        share = np.clip(((centre - points) * way).sum(-1) / (way * way).sum(-1), 0, 1)
        near = np.flatnonzero(
            (((points + share[:, None] * way - centre) ** 2).sum(-1) < radius**2) & ~hidden
        )
        hidden[near[part.primitive.hit(points[near], way[near])[0] < 1]] = True
    return hidden.reshape(hits.depth.shape)


def _window(rng: np.random.Generator, spec: SceneSpec, hits: Hits, side: float) -> ndarray:
    """Moonlight (S, S) in 0–1 in the shape of a window of two by two panes on the back wall, with
    soft borders.
    """
    x, y = side * rng.uniform(0.9, 1.8), rng.uniform(1.7, 2.1)
    # a slanted frame: the moon stands to one side
    u, v = (
        (hits.point[..., 0] - x) / 0.75,
        (hits.point[..., 1] - y + 0.25 * (hits.point[..., 0] - x)) / 0.85,
    )
    inside = (
        _soft(1 - np.abs(u))
        * _soft(1 - np.abs(v))
        * _soft(np.abs(u) - 0.06)
        * _soft(np.abs(v) - 0.06)
    )
    return inside * (hits.wall & (hits.instance == 0))


def _soft(x: ndarray) -> ndarray:
    return np.clip(x / 0.12, 0, 1)


STYLES: dict[str, Callable[[SceneSpec, Hits, list[Part], Camera], ndarray]] = {
    "pencil": pencil,
    "night": night,
}
