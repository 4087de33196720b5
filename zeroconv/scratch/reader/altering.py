"""Altered pictures: what the reader must read is soft, a little off in colour, and noisy."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from zeroconv.evaluation.reader import SIZE


def alter(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Random blur, coarseness, colour, noise and a hidden patch, each on some pictures of x (N, 3,
    H, W) in [−1, 1].
    """
    n = len(x)
    out = []
    for i in range(n):
        picture = x[i : i + 1]
        kind = rng.random()
        if kind < 0.25:
            picture = _blur(picture, rng.uniform(0.4, 1.6))
        elif kind < 0.45:
            small = int(SIZE / rng.uniform(1.2, 2.6))
            picture = nn.functional.interpolate(
                picture, (small, small), mode="bilinear", antialias=True
            )
            picture = nn.functional.interpolate(picture, (SIZE, SIZE), mode="bilinear")
        if rng.random() < 0.6:
            gain = torch.tensor(
                rng.uniform(0.75, 1.3, (1, 3, 1, 1)) * rng.uniform(0.85, 1.15), dtype=x.dtype
            )
            shift = torch.tensor(rng.uniform(-0.12, 0.12, (1, 3, 1, 1)), dtype=x.dtype)
            picture = picture * gain + shift
        if rng.random() < 0.4:
            scale = int(rng.choice([1, 2, 4]))
            grain = torch.from_numpy(
                rng.normal(0, rng.uniform(0.01, 0.08), (1, 3, SIZE // scale, SIZE // scale))
            )
            picture = picture + nn.functional.interpolate(
                grain.to(x.dtype), (SIZE, SIZE), mode="bilinear"
            )
        if rng.random() < 0.1:  # hue turned: classes must not be told by colour alone
            picture = picture[:, rng.permutation(3).tolist()]
        out.append(picture)
    return torch.cat(out).clamp(-1, 1)


def _blur(picture: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(2 * sigma)
    taps = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(picture.dtype)
    padded = nn.functional.pad(picture, (radius,) * 4, mode="replicate")
    rows = nn.functional.conv2d(padded, taps.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)
    return nn.functional.conv2d(rows, taps.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)
