"""The playroom's world: names, colours, and scenes drawn from a seed. A scene is plain data,
rendered elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 25, 25),
    "orange": (240, 125, 15),
    "yellow": (240, 215, 25),
    "green": (35, 150, 45),
    "cyan": (35, 195, 205),
    "blue": (30, 60, 205),
    "purple": (120, 35, 165),
    "pink": (240, 130, 175),
    "white": (242, 242, 240),
    "black": (32, 32, 36),
}
# name → (first colour, second colour, pattern); patterns are broad: an 8× autoencoder must keep
# them at 128 px
FLOORS = {
    "wooden": ((178, 122, 72), (158, 104, 58), "planks"),
    "grass": ((98, 158, 84), (90, 148, 78), "patches"),
    "stone": ((158, 158, 164), (142, 142, 150), "checks"),
    "blue carpet": ((98, 124, 180), (92, 118, 172), "plain"),
    "sandy": ((222, 198, 148), (214, 188, 138), "patches"),
    "tiled": ((196, 216, 214), (150, 178, 180), "checks"),
    "red carpet": ((150, 62, 66), (142, 56, 60), "plain"),
}
WALLS = {
    "grey": ((176, 178, 176), (176, 178, 176), "plain"),
    "beige": ((208, 188, 156), (208, 188, 156), "plain"),
    "pink": ((200, 150, 156), (200, 150, 156), "plain"),
    "pale blue": ((130, 160, 190), (130, 160, 190), "plain"),
    "dark": ((56, 56, 68), (56, 56, 68), "plain"),
    "green": ((134, 172, 140), (134, 172, 140), "plain"),
    "striped": ((230, 222, 150), (206, 192, 112), "stripes"),
}
KINDS = ("ball", "cube", "cylinder", "cone", "person")
ACTIONS = ("standing", "waving", "with arms raised", "sitting", "walking")
SKIN = (222, 178, 140)
CLASSES = ("wall", "floor", *KINDS)
SPLITS = {
    "train": range(8_000_000),
    "val": range(8_000_000, 9_000_000),
    "test": range(9_000_000, 10_000_000),
}


@dataclass(frozen=True)
class ObjectSpec:
    """One thing on the floor; lengths in metres, `x` to the right, `z` away from the camera, `yaw`
    in radians.
    """

    kind: str
    colour: str
    size: str  # "small" or "large"
    x: float
    z: float
    height: float
    radius: float  # of the footprint
    yaw: float
    action: str = ""  # people only


@dataclass(frozen=True)
class SceneSpec:
    seed: int
    objects: tuple[ObjectSpec, ...]  # left to right
    floor: str
    wall: str
    light: tuple[float, float, float]  # unit vector towards the light
    camera: tuple[float, float, float]  # where it stands
    yaw: float
    pitch: float  # downwards
    wall_depth: float


def split_seeds(split: str, count: int, start: int = 0) -> list[int]:
    """Seeds `start` … `start + count` of a split. Raises KeyError for an unknown split, ValueError
    past its end.
    """
    seeds = SPLITS[split]
    if start < 0 or start + count > len(seeds):
        raise ValueError(
            f"Split {split!r} has {len(seeds)} scenes; {start} to {start + count} were asked for."
        )
    return list(seeds[start : start + count])


def sample_scene(seed: int) -> SceneSpec:
    """Draw a scene: f(seed), on every machine."""
    rng = np.random.default_rng([int(seed), 20])
    camera = (rng.uniform(-0.25, 0.25), rng.uniform(1.3, 1.65), rng.uniform(-0.2, 0.2))
    side = 1.0 if rng.random() < 0.5 else -1.0
    azimuth, elevation = rng.uniform(0.5, 1.15), rng.uniform(0.7, 1.0)
    light = (
        side * math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        -math.cos(azimuth) * math.cos(elevation),
    )
    count = int(rng.choice([1, 2, 3, 4], p=[0.35, 0.35, 0.2, 0.1]))
    objects: list[ObjectSpec] = []
    for _ in range(60):
        if len(objects) == count:
            break
        candidate = _sample_object(rng, camera)
        if all(_apart(candidate, other, camera) for other in objects):
            objects.append(candidate)
    objects.sort(key=lambda o: (o.x - camera[0]) / (o.z - camera[2]))
    return SceneSpec(
        seed=int(seed),
        objects=tuple(objects),
        floor=str(rng.choice(list(FLOORS))),
        wall=str(rng.choice(list(WALLS))),
        light=light,
        camera=camera,
        yaw=rng.uniform(-0.05, 0.05),
        pitch=rng.uniform(0.11, 0.19),
        wall_depth=rng.uniform(5.8, 6.6),
    )


def _sample_object(rng: np.random.Generator, camera: tuple[float, float, float]) -> ObjectSpec:
    kind = str(rng.choice(KINDS, p=[0.19, 0.19, 0.17, 0.15, 0.30]))
    size = "large" if rng.random() < 0.5 else "small"
    small = size == "small"
    if kind == "person":
        height = rng.uniform(1.3, 1.42) if small else rng.uniform(1.95, 2.1)
        radius = 0.26 * height
    else:
        height = rng.uniform(0.56, 0.64) if small else rng.uniform(1.0, 1.15)
        radius = height * {"ball": 0.5, "cube": 0.62, "cylinder": 0.36, "cone": 0.46}[kind]
        height *= {"cylinder": 1.1, "cone": 1.2}.get(kind, 1.0)
    z = rng.uniform(3.3, 4.7)
    reach = max(0.05, 0.42 * z - radius)
    return ObjectSpec(
        kind=kind,
        colour=str(rng.choice(list(COLOURS))),
        size=size,
        x=camera[0] + rng.uniform(-reach, reach),
        z=z,
        height=height,
        radius=radius,
        yaw=rng.uniform(-0.6, 0.6) if kind == "person" else rng.uniform(0.1, math.pi / 2 - 0.1),
        action=str(rng.choice(ACTIONS)) if kind == "person" else "",
    )


def _apart(a: ObjectSpec, b: ObjectSpec, camera: tuple[float, float, float]) -> bool:
    """Not into each other on the floor, and at most a third of the narrower one hidden behind the
    other.
    """
    if math.hypot(a.x - b.x, a.z - b.z) < a.radius + b.radius + 0.05:
        return False
    (left_a, right_a), (left_b, right_b) = (
        ((o.x - camera[0] - o.radius) / o.z, (o.x - camera[0] + o.radius) / o.z) for o in (a, b)
    )
    overlap = min(right_a, right_b) - max(left_a, left_b)
    return overlap < 0.33 * min(right_a - left_a, right_b - left_b)
