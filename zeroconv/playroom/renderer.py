"""Ray casting a scene: nearest hits inside each thing's screen box, then light, shadows and
anti-aliasing.

Camera space is used only for directions: a ray's direction has unit length along the optical axis,
so its parameter is the depth. Pictures are cast at 2×2 rays a pixel and averaged; maps at pixel
centres, never averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from zeroconv.playroom.people import person_parts
from zeroconv.playroom.primitives import Primitive, vector
from zeroconv.playroom.world import COLOURS, FLOORS, SKIN, WALLS, ObjectSpec, SceneSpec

FOCAL = 1.08  # of the frame's height: 50 degrees
AMBIENT, DIFFUSE, SHINE = 0.50, 0.62, 0.28
STOOL = (120, 84, 52)


@dataclass(frozen=True)
class Part:
    primitive: Primitive
    colour: ndarray  # (3,) float32 in 0–1
    instance: int  # 1-based
    shiny: bool


@dataclass(frozen=True)
class Camera:
    position: ndarray  # (3,)
    axes: ndarray  # (3, 3): rows right, up, forward

    @classmethod
    def of(cls, spec: SceneSpec) -> Camera:
        cy, sy, cp, sp = np.cos(spec.yaw), np.sin(spec.yaw), np.cos(spec.pitch), np.sin(spec.pitch)
        forward = vector([sy * cp, -sp, cy * cp])
        right = vector([cy, 0, -sy])
        return cls(
            vector(spec.camera),
            np.stack([right, np.cross(forward, right), forward]).astype(np.float32),
        )

    def rays(self, size: int) -> ndarray:
        """Directions (size, size, 3) through the centres of a grid over the frame."""
        grid = (
            (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
            - np.float32(0.5)
        ) / np.float32(FOCAL)
        right, up, forward = self.axes
        return (grid[None, :, None] * right - grid[:, None, None] * up + forward).astype(np.float32)

    def project(self, points: ndarray) -> ndarray:
        """Points (…, 3) of the room → x, y in shares of the frame and depth (…, 3)."""
        v = (points - self.position) @ self.axes.T
        return np.stack(
            [0.5 + FOCAL * v[..., 0] / v[..., 2], 0.5 - FOCAL * v[..., 1] / v[..., 2], v[..., 2]],
            -1,
        )

    def box(self, bounds: tuple[ndarray, float], size: int) -> tuple[slice, slice]:
        """Rows and columns that a ball of the room can cover."""
        x, y, depth = self.project(bounds[0])
        reach = 1.08 * FOCAL * bounds[1] / max(0.1, depth - bounds[1])
        edges = np.clip(
            [
                (y - reach) * size,
                (y + reach) * size + 1,
                (x - reach) * size,
                (x + reach) * size + 1,
            ],
            0,
            size,
        )
        top, bottom, left, right = edges.astype(int)
        return slice(top, bottom), slice(left, right)


@dataclass
class Hits:
    """What the rays of a grid meet first."""

    depth: ndarray  # (S, S)
    normal: ndarray  # (S, S, 3), room axes
    colour: ndarray  # (S, S, 3) 0–1
    instance: ndarray  # (S, S) uint8: 0 wall or floor
    wall: ndarray  # (S, S) bool
    shiny: ndarray  # (S, S) bool
    point: ndarray  # (S, S, 3)


def parts_of(spec: SceneSpec) -> tuple[list[Part], list[dict[str, ndarray]]]:
    """Everything to draw, and the joints of the people."""
    parts: list[Part] = []
    people = []
    for number, thing in enumerate(spec.objects, start=1):
        colour = vector(COLOURS[thing.colour]) / 255
        if thing.kind == "person":
            limbs, joints = person_parts(thing)
            # trousers a shade darker, so that arms and legs stand apart
            wear = {
                "clothes": colour,
                "dark": colour * np.float32(0.78),
                "skin": vector(SKIN) / 255,
                "stool": vector(STOOL) / 255,
            }
            parts += [Part(primitive, wear[what], number, False) for primitive, what in limbs]
            people.append(joints)
        else:
            parts.append(Part(_solid(thing), colour, number, True))
    return parts, people


def _solid(thing: ObjectSpec) -> Primitive:
    h = thing.height
    foot = vector([thing.x, 0, thing.z])
    if thing.kind == "ball":
        return Primitive("ball", foot + vector([0, h / 2, 0]), foot, h / 2)
    if thing.kind == "cube":
        return Primitive(
            "box", foot + vector([0, h / 2, 0]), np.full(3, h / 2, np.float32), yaw=thing.yaw
        )
    return Primitive(thing.kind, foot, vector([thing.radius, h, 0]))


def cast(spec: SceneSpec, parts: list[Part], camera: Camera, size: int) -> Hits:
    """Nearest hits of a grid of size × size rays."""
    rays = camera.rays(size)
    hits = _room(spec, camera, rays)
    for part in parts:
        rows, columns = camera.box(part.primitive.bounds(), size)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        t, normal = part.primitive.hit(camera.position, rays[rows, columns])
        nearer = t < hits.depth[rows, columns]
        if nearer.any():
            hits.depth[rows, columns][nearer] = t[nearer]
            hits.normal[rows, columns][nearer] = normal[nearer]
            hits.colour[rows, columns][nearer] = part.colour
            hits.instance[rows, columns][nearer] = part.instance
            hits.shiny[rows, columns][nearer] = part.shiny
    hits.point = camera.position + hits.depth[..., None] * rays
    return hits


def _room(spec: SceneSpec, camera: Camera, rays: ndarray) -> Hits:
    down, ahead = rays[..., 1], rays[..., 2]
    floor = np.where(down < -1e-6, -camera.position[1] / np.minimum(down, -1e-6), np.inf).astype(
        np.float32
    )
    wall = ((spec.wall_depth - camera.position[2]) / ahead).astype(np.float32)
    is_wall = wall < floor
    depth = np.where(is_wall, wall, floor)
    normal = np.where(is_wall[..., None], vector([0, 0, -1]), vector([0, 1, 0]))
    x, y = camera.position[0] + depth * rays[..., 0], camera.position[1] + depth * down
    z = camera.position[2] + depth * ahead
    colour = np.where(
        is_wall[..., None], _pattern(WALLS[spec.wall], x, y), _pattern(FLOORS[spec.floor], x, z)
    )
    shape = depth.shape
    return Hits(
        depth, normal, colour, np.zeros(shape, np.uint8), is_wall, np.zeros(shape, bool), normal
    )


def _pattern(material: tuple, u: ndarray, v: ndarray) -> ndarray:
    """Two colours (…, 3) in 0–1, broad planks, checks, stripes soft patches over a surface's own
    axes in metres.
    """
    first, second, kind = vector(material[0]) / 255, vector(material[1]) / 255, material[2]
    if kind == "plain":
        return np.broadcast_to(first, (*u.shape, 3))
    if kind == "planks":
        share = np.floor(u / 0.55) % 2
    elif kind == "checks":
        share = (np.floor(u / 0.8) + np.floor(v / 0.8)) % 2
    elif kind == "stripes":
        share = np.floor(u / 0.6) % 2
    else:
        share = 0.5 + 0.5 * np.sin(2.1 * u + 1.3 * np.sin(1.7 * v)) * np.sin(1.9 * v)
    return first + (second - first) * share[..., None].astype(np.float32)


def _shadowed(hits: Hits, parts: list[Part], light: ndarray) -> ndarray:
    """Where the light is blocked (S, S) bool: each thing is tried only on points that lie behind
    its bounding ball.
    """
    dark = np.zeros(hits.depth.shape, bool)
    facing = hits.normal @ light > 0
    points = hits.point + hits.normal * np.float32(0.004)
    for instance in sorted({part.instance for part in parts}):
        group = [part.primitive for part in parts if part.instance == instance]
        centre, radius = _around(group)
        v = points - centre
        along = v @ light
        near = np.flatnonzero(
            ((v * v).sum(-1) - along * along < radius * radius) & (along < radius) & facing & ~dark
        )
        rest = points.reshape(-1, 3)[near]
        blocked = np.zeros(len(near), bool)
        for primitive in group:
            blocked |= np.isfinite(primitive.hit(rest, light)[0])
        dark.reshape(-1)[near[blocked]] = True
    return dark


def _around(group: list[Primitive]) -> tuple[ndarray, float]:
    """One bounding ball of several."""
    bounds = [primitive.bounds() for primitive in group]
    low = np.min([c - r for c, r in bounds], axis=0)
    high = np.max([c + r for c, r in bounds], axis=0)
    centre = (low + high) / 2
    return centre, float(max(np.linalg.norm(c - centre) + r for c, r in bounds))


def shade(spec: SceneSpec, hits: Hits, parts: list[Part], camera: Camera) -> ndarray:
    """Lambert with ambient light, a highlight on solids, cast shadows: (S, S, 3) float32 in 0–1."""
    light = vector(spec.light)
    lit = np.maximum(hits.normal @ light, 0)
    lit[_shadowed(hits, parts, light)] = 0
    # the back wall is lit evenly: it would otherwise change its colour's name with the light
    brightness = np.where(
        hits.wall & (hits.instance == 0), 0.72 + 0.28 * (lit > 0), AMBIENT + DIFFUSE * lit
    )
    colour = hits.colour * brightness[..., None]
    shiny = hits.shiny & (lit > 0)
    if shiny.any():
        view = camera.position - hits.point[shiny]
        view /= np.linalg.norm(view, axis=-1, keepdims=True)
        half = view + light
        half /= np.linalg.norm(half, axis=-1, keepdims=True)
        colour[shiny] += (
            SHINE * np.maximum((half * hits.normal[shiny]).sum(-1, keepdims=True), 0) ** 24
        )
    return colour


def draw(spec: SceneSpec, size: int, samples: int = 2) -> ndarray:
    """The picture (size, size, 3) uint8, samples² rays a pixel."""
    camera, (parts, _) = Camera.of(spec), parts_of(spec)
    hits = cast(spec, parts, camera, size * samples)
    colour = np.clip(shade(spec, hits, parts, camera), 0, 1)
    mean = colour.reshape(size, samples, size, samples, 3).mean(axis=(1, 3))
    return (mean * 255 + 0.5).astype(np.uint8)
