"""Hints that only a network reads: depth, normals, classes, people, by a reader of the playroom
that never judges.

All maps are at the reader's 128 pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zeroconv.conditions import maps
from zeroconv.conditions.pose import COLOURS
from zeroconv.evaluation.reader import CLASSES, REACH, SIZE, STRIDE, Maps, Reader
from zeroconv.playroom import CLASSES as NAMES
from zeroconv.training.reward.distances import maps_apart, mean_of, values_apart

_CELLS = SIZE // STRIDE
_SPREAD = 1.25  # cells: of a joint's heat
_VOTES = 2 * math.pi  # the sum of a person's centre heat: its spread is one cell


def maps_of(reader: Reader, pictures: Tensor) -> Maps:
    """What the reader sees in pictures (n, 3, H, W) in [0, 1]; those of other sizes are scaled."""
    return reader(2 * at_size(pictures) - 1)


def at_size(x: Tensor, nearest: bool = False) -> Tensor:
    """(n, C, H, W) at the reader's size."""
    if x.shape[-2:] == (SIZE, SIZE):
        return x
    if nearest:
        return nn.functional.interpolate(x, (SIZE, SIZE), mode="nearest-exact")
    return nn.functional.interpolate(
        x, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True
    )


def depth_apart(seen: Maps, hints: Tensor, weights: Tensor) -> Tensor:
    """Mean difference of inverse depths, in shares of the range of depth hints."""
    near, far = 1 / maps.NEAR, 1 / maps.FAR
    share = ((seen.inverse_depth[:, None] - far) / (near - far)).clamp(0, 1)
    return values_apart(share, at_size(hints[:, :1]), at_size(weights))


def normals_apart(seen: Maps, hints: Tensor, weights: Tensor) -> Tensor:
    """Mean of (1 − cosine) / 2 where the hint has a normal."""
    turned = hints.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    vectors = (at_size(hints[:, :3], nearest=True) * 2 - 1) * turned
    known = (vectors.norm(dim=1, keepdim=True) > 0.5).to(weights.dtype)
    cosine = (seen.normal * nn.functional.normalize(vectors, dim=1)).sum(1, keepdim=True)
    return mean_of((1 - cosine) / 2, at_size(weights) * known)


def classes_apart(seen: Maps, hints: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy at the hint's classes, 1 for a guess among all. Colours that are no class of
    the playroom do not count.
    """
    colours = hints.new_tensor(maps.PLAYROOM_COLOURS) / 255
    painted = at_size(hints[:, :3], nearest=True)
    match = ((painted[:, None] - colours[:, :, None, None]).abs() < 1e-3).all(2)  # (n, 7, H, W)
    logs = seen.classes.log_softmax(1)
    entropy = -(logs * match).sum(1, keepdim=True) / math.log(CLASSES)
    known = match.any(1, keepdim=True).to(weights.dtype)
    return mean_of(entropy, at_size(weights) * known)


def person_apart(seen: Maps, hints: Tensor, weights: Tensor) -> Tensor:
    """Where people are: their class's probability beside a mask."""
    share = seen.classes.softmax(1)[:, NAMES.index("person")][:, None]
    return maps_apart(share, at_size(hints[:, :1]), at_size(weights))


def poses_apart(seen: Maps, hints: Tensor, weights: Tensor) -> Tensor:
    """Heat maps of eighteen joints: the votes of the reader's cells beside the dots of a drawn
    pose.
    """
    counts = nn.functional.adaptive_avg_pool2d(at_size(weights), _CELLS)
    return maps_apart(voted_heat(seen), drawn_heat(hints), counts)


def voted_heat(seen: Maps) -> Tensor:
    """(n, 18, h, w): every cell votes for each joint, as much as a person's middle lies in it."""
    n = len(seen.centre)
    cells = torch.arange(_CELLS, device=seen.centre.device, dtype=seen.centre.dtype)
    share = seen.centre.sigmoid().flatten(1) / _VOTES  # (n, P)
    steps = REACH / STRIDE * seen.joints  # (n, 18, 2, h, w), in cells
    x = (cells[None, :] + steps[:, :, 0]).flatten(2)  # (n, 18, P)
    y = (cells[:, None] + steps[:, :, 1]).flatten(2)

    def bell(at: Tensor) -> Tensor:
        return (-(at[..., None] - cells).square() / (2 * _SPREAD**2)).exp()  # (n, 18, P, cells)

    heat = torch.einsum("np,njpy,njpx->njyx", share, bell(y), bell(x))
    return heat.reshape(n, -1, _CELLS, _CELLS)


def drawn_heat(hints: Tensor) -> Tensor:
    """(n, 18, h, w) of poses drawn in OpenPose's colours (n, 3, H, W): one bell a dot."""
    colours = hints.new_tensor(COLOURS) / 255
    dots = ((hints[:, None, :3] - colours[:, :, None, None]).abs() < 1e-3).all(2).to(hints.dtype)
    radius = max(1, round(4 * max(hints.shape[-2:]) / 512))
    cell = hints.shape[-2] * hints.shape[-1] / _CELLS**2  # pixels
    mass = nn.functional.adaptive_avg_pool2d(dots, _CELLS) * cell / _dot_pixels(radius)

    cells = torch.arange(_CELLS, device=hints.device, dtype=hints.dtype)
    bells = (-(cells[:, None] - cells).square() / (2 * _SPREAD**2)).exp()
    return torch.einsum("njyx,yb,xa->njba", mass, bells, bells)


def _dot_pixels(radius: int) -> int:
    """Pixels of OpenCV's filled circle."""
    import cv2
    import numpy as np

    side = 2 * radius + 3
    middle = side // 2
    return int(cv2.circle(np.zeros((side, side), np.uint8), (middle, middle), radius, 1, -1).sum())
