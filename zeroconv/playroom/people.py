"""Jointed people: a pose gives joints, joints give capsules to draw and key points to look for."""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from zeroconv.playroom.primitives import Primitive, vector
from zeroconv.playroom.world import ObjectSpec

# OpenPose's eighteen points, in its order; right and left are the person's own
KEYPOINTS = (
    "nose",
    "neck",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
    "right eye",
    "left eye",
    "right ear",
    "left ear",
)

# height fractions of a standing adult, arms and head a little stout so that they survive at 64 px
SHOULDER, HIP, KNEE, ANKLE, HEAD = 0.80, 0.51, 0.27, 0.045, 0.905
HALF_SHOULDERS, HALF_HIPS, UPPER_ARM, FOREARM = 0.135, 0.075, 0.165, 0.16
LIMB, LEG, TORSO, SKULL, HAND = 0.042, 0.052, 0.085, 0.088, 0.045


def _direction(side: float, down: float, forward: float) -> ndarray:
    v = vector([side, -down, forward])
    return v / np.linalg.norm(v)


def joints(action: str, height: float, swing: float) -> dict[str, ndarray]:
    """Joint positions in the person's own frame (x to the left hand, y up, z where the face looks),
    metres.
    """
    lift = KNEE - HIP + 0.045 if action == "sitting" else 0.0
    p: dict[str, ndarray] = {
        "neck": vector([0, SHOULDER + 0.015 + lift, 0]),
        "head": vector([0, HEAD + lift, 0.01]),
    }
    for sign, side in ((1.0, "left"), (-1.0, "right")):
        p[f"{side} shoulder"] = vector([sign * HALF_SHOULDERS, SHOULDER + lift, 0])
        p[f"{side} hip"] = vector([sign * HALF_HIPS, HIP + lift, 0])
        upper, lower = _arm(action, sign, swing)
        p[f"{side} elbow"] = p[f"{side} shoulder"] + UPPER_ARM * upper * vector([sign, 1, 1])
        p[f"{side} wrist"] = p[f"{side} elbow"] + FOREARM * lower * vector([sign, 1, 1])
        thigh, shin = _leg(action, sign, swing)
        p[f"{side} knee"] = p[f"{side} hip"] + (HIP - KNEE) * thigh
        p[f"{side} ankle"] = p[f"{side} knee"] + (KNEE - ANKLE) * shin
    return {name: value * np.float32(height) for name, value in p.items()}


def _arm(action: str, sign: float, swing: float) -> tuple[ndarray, ndarray]:
    """Directions of upper arm and forearm; `side` is away from the body."""
    if action == "with arms raised":
        return _direction(0.75, -0.7, 0.1), _direction(0.2 + 0.3 * swing, -1, 0.05)
    if action == "waving" and sign * (1 if swing > 0 else -1) > 0:
        return _direction(1, -0.15, 0.1), _direction(0.35, -1, 0.05)
    if action == "sitting":
        return _direction(0.15, 1, 0.35), _direction(-0.05, 0.25, 1)
    if action == "walking":
        return _direction(0.22, 1, -0.55 * sign * math.copysign(1, swing)), _direction(
            0.1, 1, 0.3 - 0.45 * sign * math.copysign(1, swing)
        )
    return _direction(0.30, 1, 0.05), _direction(0.12, 1, 0.15)


def _leg(action: str, sign: float, swing: float) -> tuple[ndarray, ndarray]:
    if action == "sitting":
        return _direction(0.18 * sign, 0.12, 1), _direction(0.02 * sign, 1, 0.05)
    if action == "walking":
        step = sign * math.copysign(1, swing)
        return _direction(0.04 * sign, 1, 0.5 * step), _direction(
            0, 1, 0.45 * step - (0.5 if step < 0 else 0.1)
        )
    return _direction(0.10 * sign, 1, 0.02), _direction(0.04 * sign, 1, -0.03)


def _to_world(points: dict[str, ndarray], person: ObjectSpec, yaw: float) -> dict[str, ndarray]:
    """Stand the person on the floor, face towards the camera (−z) turned by `yaw`."""
    c, s = math.cos(yaw), math.sin(yaw)
    low = (
        min(float(points["left ankle"][1]), float(points["right ankle"][1]))
        - (LEG * 0.9) * person.height
    )
    feet = vector([person.x, -low, person.z])
    # the person's left is the viewer's right when the face looks at the camera: x stays, z
    # turns round
    return {
        n: vector([c * v[0] - s * v[2], v[1], -s * v[0] - c * v[2]]) + feet
        for n, v in points.items()
    }


def swing_of(person: ObjectSpec) -> float:
    """Which arm waves, which foot is ahead, how far arms open: in (−1, 1), from the person's
    yaw.
    """
    return math.sin(37.0 * person.yaw) or 0.5


def facing(person: ObjectSpec) -> float:
    """Walkers are seen half from the side, the others nearly from the front."""
    return person.yaw + math.copysign(0.7, person.yaw) if person.action == "walking" else person.yaw


def person_parts(person: ObjectSpec) -> tuple[list[tuple[Primitive, str]], dict[str, ndarray]]:
    """Capsules with what they wear ("clothes", "dark", "skin", "stool") and the joints in the
    room.
    """
    h, points = person.height, joints(person.action, person.height, swing_of(person))
    j = _to_world(points, person, facing(person))
    forward = vector([-math.sin(facing(person)), 0, -math.cos(facing(person))])
    parts: list[tuple[Primitive, str]] = []
    for side in ("left", "right"):
        parts += [
            (_limb(j[f"{side} shoulder"], j[f"{side} elbow"], LIMB * h), "clothes"),
            (_limb(j[f"{side} elbow"], j[f"{side} wrist"], LIMB * h * 0.92), "clothes"),
            (_ball(j[f"{side} wrist"], HAND * h), "skin"),
            (_limb(j[f"{side} hip"], j[f"{side} knee"], LEG * h), "dark"),
            (_limb(j[f"{side} knee"], j[f"{side} ankle"], LEG * h * 0.85), "dark"),
            (
                _limb(_inward(j, side, "shoulder", 0.5), _inward(j, side, "hip", 0.3), TORSO * h),
                "clothes",
            ),
        ]
    parts.append((_ball(j["head"], SKULL * h), "skin"))
    if person.action == "sitting":
        hips = (j["left hip"] + j["right hip"]) / 2
        top = float(hips[1]) - LEG * h
        half = vector([0.13 * h, top / 2, 0.11 * h])
        centre = vector([hips[0], top / 2, hips[2]]) + forward * np.float32(0.03 * h)
        parts.append((Primitive("box", centre, half, yaw=-facing(person)), "stool"))
    across = vector([math.cos(facing(person)), 0, -math.sin(facing(person))])
    j["nose"] = j["head"] + forward * np.float32(SKULL * h)
    for sign, name in ((1, "left"), (-1, "right")):
        j[f"{name} eye"] = (
            j["head"]
            + vector([0, 0.03 * h, 0])
            + (0.85 * forward + 0.42 * sign * across) * np.float32(SKULL * h)
        )
        j[f"{name} ear"] = j["head"] + (0.98 * sign * across) * np.float32(SKULL * h)
    return parts, j


def _inward(j: dict[str, ndarray], side: str, joint: str, share: float) -> ndarray:
    """A joint moved towards the body's middle: the torso's two capsules overlap, and arms stand
    clear of them.
    """
    middle = (j[f"left {joint}"] + j[f"right {joint}"]) / 2
    return j[f"{side} {joint}"] + np.float32(share) * (middle - j[f"{side} {joint}"])


def _limb(a: ndarray, b: ndarray, radius: float) -> Primitive:
    return Primitive("capsule", a, b, radius)


def _ball(centre: ndarray, radius: float) -> Primitive:
    return Primitive("ball", centre, centre, radius)
