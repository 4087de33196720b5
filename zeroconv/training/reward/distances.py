"""Distances of maps that were read from pictures to the given ones: one number a picture, in
[0, 1], that does not depend on the maps' scale.

Maps are (n, C, H, W). weights (n, 1, H, W) in [0, 1] say where a pixel counts.
"""

from __future__ import annotations

from torch import Tensor, nn

_PIXEL = 1.0  # of a sum of pixels: two empty maps agree


def widened(lines: Tensor, pixels: int = 1) -> Tensor:
    """The largest value within so many pixels in both directions."""
    return nn.functional.max_pool2d(lines, 2 * pixels + 1, 1, pixels)


def lines_apart(read: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    """One minus the F1 of soft lines in [0, 1], the mean of the exact one and the one within a
    pixel.

    Precision is the share of what was read that lies on given lines; recall is the share of given
    lines on which something was read.
    """
    exact = _f1(read, given, read, given, weights)
    near = _f1(read, given, widened(read), widened(given), weights)
    return 1 - (exact + near) / 2


def _f1(
    read: Tensor, given: Tensor, near_read: Tensor, near_given: Tensor, weights: Tensor
) -> Tensor:
    def total(x: Tensor) -> Tensor:
        return (x * weights).sum((1, 2, 3)) + _PIXEL

    precision = total(read * near_given) / total(read)
    recall = total(given * near_read) / total(given)
    return 2 * precision * recall / (precision + recall)


def maps_apart(read: Tensor, given: Tensor, weights: Tensor, least: float = 1e-3) -> Tensor:
    """Σ (r − g)² / (Σ r² + Σ g²) of maps of 0 and above. least: of a pixel's mean square below
    which maps count as empty.
    """
    squares = ((read - given).square() * weights).sum((1, 2, 3))
    both = ((read.square() + given.square()) * weights).sum((1, 2, 3))
    return squares / (both + least * _count(read, weights))


def values_apart(read: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    """Mean of |r − g| of values in [0, 1]."""
    return ((read - given).abs() * weights).sum((1, 2, 3)) / _count(read, weights)


def _count(maps: Tensor, weights: Tensor) -> Tensor:
    """How many values of each picture count, at least one."""
    return (weights.sum((1, 2, 3)) * maps.shape[1]).clamp_min(_PIXEL)


def mean_of(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of values (n, 1, H, W) of each picture; 0 where nothing counts."""
    return (values * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(_PIXEL)
