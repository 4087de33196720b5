"""Hints that keep some of the picture itself, read differentiably. Pictures (n, 3, H, W) in
[0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroconv.training.reward.distances import values_apart
from zeroconv.training.reward.edges import blurred, grey

_BINS = 8  # a channel, of `histogram`
_LARGEST = 128  # pixels a side of what `histogram` counts


def invert(pictures: Tensor) -> Tensor:
    return 1 - pictures


def threshold(pictures: Tensor, level: float = 127.0) -> Tensor:
    """(n, 1, H, W): whether the darkest channel is above `level`."""
    return ((255 * pictures.amin(1, keepdim=True) - level - 0.5) / 10).sigmoid()


def coarse(pictures: Tensor, factor: float = 8.0) -> Tensor:
    """Means of squares of `factor` pixels, brought back to the picture's size."""
    height, width = pictures.shape[-2:]
    cells = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = nn.functional.adaptive_avg_pool2d(pictures, cells)
    return nn.functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)


def palette(pictures: Tensor, grid: int = 8) -> Tensor:
    """A grid of mean colours, `grid` cells on the shorter side."""
    height, width = pictures.shape[-2:]
    factor = max(1.0, min(height, width) / grid)
    cells = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = nn.functional.adaptive_avg_pool2d(pictures, cells)
    return nn.functional.interpolate(small, (height, width), mode="nearest-exact")


def blur(pictures: Tensor, sigma: float = 0.03) -> Tensor:
    """sigma in shares of the longer side."""
    return blurred(pictures, sigma * max(pictures.shape[-2:]))


def recolor(pictures: Tensor) -> Tensor:
    return grey(pictures)


def itself(pictures: Tensor) -> Tensor:
    return pictures


def outside_hole(read: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    """Of a hint (n, 4, H, W): colours and, below one half, a hole that may be filled freely."""
    shown = (given[:, 3:] >= 0.5).to(weights.dtype) if given.shape[1] == 4 else 1.0
    return values_apart(read, given[:, :3], weights * shown)


def histograms_apart(read: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    """One minus the overlap of both colour histograms."""
    return 1 - torch.minimum(histogram(read, weights), histogram(given, weights)).sum(1)


def histogram(pictures: Tensor, weights: Tensor) -> Tensor:
    """(n, 512): shares of pixels in 8 × 8 × 8 bins of RGB; a pixel is shared by the bins around
    it.
    """
    height, width = pictures.shape[-2:]
    cells = (min(_LARGEST, height), min(_LARGEST, width))
    small = nn.functional.adaptive_avg_pool2d(pictures, cells).flatten(2)  # (n, 3, P)
    counts = nn.functional.adaptive_avg_pool2d(weights, cells).flatten(1)  # (n, P)
    middles = (torch.arange(_BINS, device=small.device, dtype=small.dtype) + 0.5) / _BINS
    near = (1 - (small[..., None].clamp(middles[0], middles[-1]) - middles).abs() * _BINS).relu()
    red, green, blue = near.unbind(1)  # (n, P, 8) each
    bins = torch.einsum("np,npr,npg,npb->nrgb", counts, red, green, blue).flatten(1)
    return bins / counts.sum(1, keepdim=True).clamp_min(1.0)
