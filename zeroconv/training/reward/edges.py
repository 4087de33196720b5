"""Hints that are lines, read differentiably: `zeroconv.conditions.edges` made smooth.

Pictures are (n, 3, H, W) in [0, 1], what is read is (n, 1, H, W) in [0, 1]. Thresholds are soft, so
that an edge which is too weak has a gradient towards one.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from zeroconv.conditions import edges
from zeroconv.training.reward.distances import lines_apart, widened

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601
# softness of canny's thresholds and of its comparison across an edge, in grey levels × 4
_SOFT, _ACROSS = 20.0, 5.0


def grey(pictures: Tensor) -> Tensor:
    """(n, 1, H, W) in [0, 1]."""
    luma = pictures.new_tensor(_LUMA)
    return (pictures * luma[:, None, None]).sum(1, keepdim=True)


def canny(pictures: Tensor, low: float = 100.0, high: float = 200.0) -> Tensor:
    """Canny's edges, with soft thresholds and a soft comparison across the edge.

    Hysteresis is no smooth function: which weak pixels hang on strong ones is read from Canny's own
    edges. They are measured by the lower threshold, all others by the upper one.
    """
    level = 255 * nn.functional.pad(grey(pictures), (1, 1, 1, 1), mode="replicate")
    x, y = _sobel(level)
    strength = x.abs() + y.abs()

    drawn = [edges.draw_canny(picture, low, high) for picture in as_bytes(pictures)]
    edge = torch.from_numpy(np.stack(drawn)[:, None]).to(pictures.device) > 0
    weak, strong = (((strength - limit) / _SOFT).sigmoid() for limit in (low, high))
    return _ridge(strength, x.detach(), y.detach()) * torch.where(edge, weak, strong)


def _ridge(strength: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """How far each pixel exceeds its neighbours across the edge, in [0, 1]. Of two equal ones the
    left or upper one counts, as in OpenCV.
    """
    padded = nn.functional.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[-2:]

    def beside(down: int, right: int) -> Tensor:
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    slope = math.tan(math.pi / 8)
    level, upright = y.abs() < slope * x.abs(), x.abs() < slope * y.abs()
    rising = x * y < 0
    before = torch.where(level, beside(0, -1), torch.where(rising, beside(-1, 1), beside(-1, -1)))
    before = torch.where(upright, beside(-1, 0), before)
    after = torch.where(level, beside(0, 1), torch.where(rising, beside(1, -1), beside(1, 1)))
    after = torch.where(upright, beside(1, 0), after)
    tie = _ACROSS
    exceeds_before = ((strength - before - tie) / _ACROSS).sigmoid()
    return exceeds_before * ((strength - after + tie) / _ACROSS).sigmoid()


def lines(pictures: Tensor) -> Tensor:
    """(n, 2, H, W): straight segments, as LSD reads them, without a gradient; and how strong the
    edge at each pixel is, which has one.

    LSD is no smooth function of the picture. Its own threshold on the strength is low.
    """
    drawn = [edges.draw_lines(picture) for picture in as_bytes(pictures)]
    segments = torch.from_numpy(np.stack(drawn)[:, None]).to(pictures) / 255
    level = 255 * nn.functional.pad(grey(pictures), (1, 1, 1, 1), mode="replicate")
    x, y = _sobel(level)
    return torch.cat([segments, ((widened(x.abs() + y.abs()) - 40) / 15).sigmoid()], 1)


def segments_apart(read: Tensor, given: Tensor, weights: Tensor) -> Tensor:
    """`lines_apart` of `lines`: edges count where LSD reads a segment or one is given."""
    segments, strength = read.chunk(2, 1)
    return lines_apart(strength * torch.maximum(segments, given), given, weights)


def as_bytes(pictures: Tensor) -> list[np.ndarray]:
    """(H, W, 3) uint8 arrays, for annotators that have no gradient."""
    pixels = (pictures.detach() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [np.ascontiguousarray(picture) for picture in pixels]


def lineart(pictures: Tensor, tau: float = 0.98, sharpness: float = 60.0) -> Tensor:
    """XDoG; its corner at zero is rounded."""
    level = grey(pictures)
    sigma = max(0.6, side_of(pictures) / 512)
    difference = blurred(level, sigma) - tau * blurred(level, 1.6 * sigma)
    ink = nn.functional.softplus(0.002 - difference, beta=500.0)
    return (sharpness * ink).tanh()


def softedge(pictures: Tensor) -> Tensor:
    """Gradients of CIELAB at three scales; a root that has no slope at zero is avoided."""
    colours = _lab(pictures)
    unit = side_of(pictures) / 512
    product = torch.ones_like(colours[:, :1])
    for sigma in (1.0, 2.0, 4.0):
        smooth = blurred(colours, max(0.5, sigma * max(unit, 0.5)))
        x, y = _sobel(nn.functional.pad(smooth, (1, 1, 1, 1), mode="reflect"))
        squares = ((x / 8).square() + (y / 8).square()).sum(1, keepdim=True)
        product = product * (squares + 1e-3).sqrt()
    return (product.pow(1 / 3) / 9.0).tanh()


def scribble(pictures: Tensor, threshold: float = 0.45, width: float = 0.012) -> Tensor:
    """Ridges of soft edges above a threshold, drawn with the annotator's pen. Specks, which the
    annotator drops, are kept.
    """
    strength = softedge(pictures)
    around = torch.stack([_beside_least(strength, *step) for step in _STEPS]).amin(0)
    ridge = ((strength - around) / 0.02 + 1).sigmoid() * ((strength - threshold) / 0.05).sigmoid()

    pen = max(2, round(width * side_of(pictures)))
    broad = _dilated(ridge, pen + 1)
    return ((blurred(broad, pen / 2) - 0.5) / 0.06).sigmoid()


_STEPS = ((1, 0), (0, 1), (1, 1), (1, -1))  # across which a ridge may run


def _beside_least(strength: Tensor, down: int, right: int) -> Tensor:
    """The larger of both neighbours in a direction."""
    padded = nn.functional.pad(strength, (1, 1, 1, 1), mode="replicate")
    height, width = strength.shape[-2:]

    def at(sign: int) -> Tensor:
        top, left = 1 + sign * down, 1 + sign * right
        return padded[..., top : top + height, left : left + width]

    return torch.maximum(at(1), at(-1))


def _dilated(ridge: Tensor, size: int) -> Tensor:
    """The largest value under an ellipse of `size` pixels, as OpenCV has it."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    before = size // 2
    padded = nn.functional.pad(ridge, (before, size - 1 - before) * 2)
    height, width = ridge.shape[-2:]
    shifts = [
        padded[..., i : i + height, j : j + width] for i, j in zip(*kernel.nonzero(), strict=True)
    ]
    return torch.stack(shifts).amax(0)


# ---------------------------------------------------------------- filters


def side_of(pictures: Tensor) -> int:
    """As `zeroconv.conditions.edges.side_of`."""
    return edges.side_of(np.empty(pictures.shape[-2:]))


def _sobel(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's differences of maps (n, C, H + 2, W + 2): across and down, (n, C, H, W)."""
    right = padded[..., 2:] - padded[..., :-2]
    x = right[..., :-2, :] + 2 * right[..., 1:-1, :] + right[..., 2:, :]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    y = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return x, y


def blurred(maps: Tensor, sigma: float) -> Tensor:
    """As OpenCV's GaussianBlur of float32: (n, C, H, W), mirrored at the border."""
    kernel = torch.tensor(_gaussian(sigma), dtype=maps.dtype, device=maps.device)
    pad = len(kernel) // 2
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, 1, height, width)
    mirrored = nn.functional.pad(
        flat, (pad,) * 4, mode="reflect" if pad < min(height, width) else "replicate"
    )
    across = nn.functional.conv2d(mirrored, kernel[None, None, None, :])
    return nn.functional.conv2d(across, kernel[None, None, :, None]).view_as(maps)


@lru_cache(maxsize=64)
def _gaussian(sigma: float) -> tuple[float, ...]:
    size = round(8 * sigma + 1) | 1
    return tuple(cv2.getGaussianKernel(size, sigma)[:, 0].tolist())


def _lab(pictures: Tensor) -> Tensor:
    """sRGB in [0, 1] → CIELAB, D65 white; L in [0, 100]."""
    linear = torch.where(
        pictures <= 0.04045, pictures / 12.92, ((pictures.clamp_min(0.04) + 0.055) / 1.055) ** 2.4
    )
    to_xyz = pictures.new_tensor(_XYZ)
    xyz = torch.einsum("nchw,xc->nxhw", linear, to_xyz)
    least = (6 / 29) ** 3
    roots = xyz.clamp_min(least).pow(1 / 3)
    f = torch.where(xyz > least, roots, xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


# rows of sRGB's matrix, each over its white: IEC 61966-2-1 and D65
_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)
