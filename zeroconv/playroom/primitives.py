"""Rays against balls, boxes, upright cylinders and cones, and capsules.

Every function takes ray origins and directions of broadcastable shape (…, 3), float32, directions
of any length, and returns the nearest positive ray parameter (…,), infinity where the ray misses,
and the outward unit normal (…, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

FAR = np.float32(np.inf)
NEAR = np.float32(1e-3)


@dataclass(frozen=True)
class Primitive:
    """A `shape` and its numbers: ball (centre, radius); box (centre, half sizes, yaw); cylinder and
    cone (base, radius, height); capsule (both ends, radius).
    """

    shape: str
    a: ndarray  # (3,)
    # (3,): half sizes of a box, (radius, height, 0) of a cylinder or cone, the other end of a
    # capsule
    b: ndarray
    radius: float = 0.0
    yaw: float = 0.0

    def bounds(self) -> tuple[ndarray, float]:
        """A ball around it: centre (3,), radius."""
        if self.shape == "ball":
            return self.a, self.radius
        if self.shape == "box":
            return self.a, float(np.linalg.norm(self.b))
        if self.shape == "capsule":
            return (self.a + self.b) / 2, float(np.linalg.norm(self.b - self.a)) / 2 + self.radius
        half = self.b[1] / 2
        return self.a + vector([0, half, 0]), float(np.hypot(half, self.b[0]))

    def hit(self, origin: ndarray, direction: ndarray) -> tuple[ndarray, ndarray]:
        return {
            "ball": _ball,
            "box": _box,
            "cylinder": _cylinder,
            "cone": _cone,
            "capsule": _capsule,
        }[self.shape](self, origin, direction)


def vector(values: Sequence[float]) -> ndarray:
    """Numbers as a float32 array."""
    return np.asarray(values, np.float32)


def _dot(a: ndarray, b: ndarray) -> ndarray:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _ball_parameter(centre: ndarray, radius: float, o: ndarray, d: ndarray) -> ndarray:
    oc = o - centre
    a, b, c = _dot(d, d), _dot(oc, d), _dot(oc, oc) - np.float32(radius * radius)
    inside = b * b - a * c
    root = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return np.where((inside > 0) & (root > NEAR), root, FAR)


def _ball(p: Primitive, o: ndarray, d: ndarray) -> tuple[ndarray, ndarray]:
    t = _ball_parameter(p.a, p.radius, o, d)
    finite = np.where(np.isfinite(t), t, 0)[..., None]
    return t, (o + finite * d - p.a) / np.float32(p.radius)


def _turn(v: ndarray, yaw: float) -> ndarray:
    c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    return np.stack(
        [c * v[..., 0] - s * v[..., 2], v[..., 1], s * v[..., 0] + c * v[..., 2]], axis=-1
    )


def _box(p: Primitive, o: ndarray, d: ndarray) -> tuple[ndarray, ndarray]:
    o, d = np.broadcast_arrays(_turn(o - p.a, p.yaw), _turn(d, p.yaw))
    inverse = 1 / np.where(np.abs(d) < 1e-7, np.float32(1e-7), d)
    near, far = (-np.sign(inverse) * p.b - o) * inverse, (np.sign(inverse) * p.b - o) * inverse
    axis = near.argmax(axis=-1)
    enter, leave = near.max(axis=-1), far.min(axis=-1)
    t = np.where((enter < leave) & (enter > NEAR), enter, FAR)
    normal = np.zeros(d.shape, np.float32)
    np.put_along_axis(
        normal, axis[..., None], -np.sign(np.take_along_axis(d, axis[..., None], -1)), -1
    )
    return t, _turn(normal, -p.yaw)


def _cap(y: float, radius: float, o: ndarray, d: ndarray) -> ndarray:
    """Ray parameter of a horizontal disc about the vertical axis at height `y`."""
    dy = np.where(np.abs(d[..., 1]) < 1e-7, np.float32(1e-7), d[..., 1])
    t = (np.float32(y) - o[..., 1]) / dy
    x, z = o[..., 0] + t * d[..., 0], o[..., 2] + t * d[..., 2]
    return np.where((x * x + z * z < radius * radius) & (t > NEAR), t, FAR)


def _cylinder(p: Primitive, o: ndarray, d: ndarray) -> tuple[ndarray, ndarray]:
    o = o - p.a
    radius, height = float(p.b[0]), float(p.b[1])
    a = d[..., 0] ** 2 + d[..., 2] ** 2
    b = o[..., 0] * d[..., 0] + o[..., 2] * d[..., 2]
    c = o[..., 0] ** 2 + o[..., 2] ** 2 - radius * radius
    inside = b * b - a * c
    t = (-b - np.sqrt(np.maximum(inside, 0))) / np.maximum(a, 1e-9)
    y = o[..., 1] + t * d[..., 1]
    side = np.where((inside > 0) & (y > 0) & (y < height) & (t > NEAR), t, FAR)
    top = _cap(height, radius, o, d)
    t = np.minimum(side, top)
    finite = np.where(np.isfinite(side), side, 0)
    normal = np.stack(
        [
            (o[..., 0] + finite * d[..., 0]) / radius,
            np.zeros_like(t),
            (o[..., 2] + finite * d[..., 2]) / radius,
        ],
        -1,
    )
    normal[top < side] = vector([0, 1, 0])
    return t, normal


def _cone(p: Primitive, o: ndarray, d: ndarray) -> tuple[ndarray, ndarray]:
    radius, height = float(p.b[0]), float(p.b[1])
    o = o - p.a - vector([0, height, 0])  # the tip at the origin, opening downwards
    k = (radius / height) ** 2
    a = d[..., 0] ** 2 + d[..., 2] ** 2 - k * d[..., 1] ** 2
    b = o[..., 0] * d[..., 0] + o[..., 2] * d[..., 2] - k * o[..., 1] * d[..., 1]
    c = o[..., 0] ** 2 + o[..., 2] ** 2 - k * o[..., 1] ** 2
    inside = b * b - a * c
    root, safe = np.sqrt(np.maximum(inside, 0)), np.where(np.abs(a) < 1e-7, np.float32(1e-7), a)
    best = np.full(np.broadcast_shapes(a.shape, b.shape), FAR, np.float32)
    for t in ((-b - root) / safe, (-b + root) / safe):
        y = o[..., 1] + t * d[..., 1]
        best = np.where((inside > 0) & (y < 0) & (y > -height) & (t > NEAR) & (t < best), t, best)
    finite = np.where(np.isfinite(best), best, 0)
    x, y, z = (o[..., i] + finite * d[..., i] for i in range(3))
    normal = np.stack([x, -k * y, z], -1)
    return best, normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


def _capsule(p: Primitive, o: ndarray, d: ndarray) -> tuple[ndarray, ndarray]:
    axis, oa = p.b - p.a, o - p.a
    length2 = np.float32(axis @ axis)
    ad, ao = _dot(d, axis), _dot(oa, axis)
    a = length2 * _dot(d, d) - ad * ad
    b = length2 * _dot(oa, d) - ao * ad
    c = length2 * _dot(oa, oa) - ao * ao - np.float32(p.radius**2) * length2
    inside = b * b - a * c
    t = (-b - np.sqrt(np.maximum(inside, 0))) / np.maximum(a, 1e-9)
    along = ao + t * ad
    body = np.where((inside > 0) & (along > 0) & (along < length2) & (t > NEAR), t, FAR)
    t = np.minimum(
        body, np.minimum(_ball_parameter(p.a, p.radius, o, d), _ball_parameter(p.b, p.radius, o, d))
    )
    point = oa + np.where(np.isfinite(t), t, 0)[..., None] * d
    share = np.clip(_dot(point, axis) / length2, 0, 1)
    return t, (point - share[..., None] * axis) / np.float32(p.radius)
