"""Hints that keep some of the picture itself: colours, brightness, coarse content. No learned
weights.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.conditions.parameters import SEEDS, Range, bounded
from zeroconv.errors import UserError

# pixels of sigma from which a blur is made of a smaller picture: its time grows with sigma
_BROAD = 256.0

_MOST_SIDE = 32_766  # OpenCV counts the sides of what it remaps in 16 bits


@bounded(seed=SEEDS, reach=Range(0, 10, above=True))
def draw_shuffle(image: ndarray, seed: int = 0, reach: float = 0.3) -> ndarray:
    """Content shuffled: every pixel fetched from along a smooth random flow, so that colours stay
    and shapes do not.

    reach: of the flow, in shares of the picture's sides. The same seed gives the same flow.
    """
    height, width = image.shape[:2]
    if max(height, width) > _MOST_SIDE:
        raise UserError(
            f"shuffle takes pictures of at most {_MOST_SIDE:,} pixels a side, not {width}×{height}."
        )
    rng = np.random.default_rng(int(seed))
    coarse = rng.uniform(-1, 1, (2, 5, 5)).astype(np.float32)
    flow = [cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + reach * width * flow[0], y + reach * height * flow[1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


@bounded(factor=Range(1, 10_000))
def draw_tile(image: ndarray, factor: float = 8.0) -> ndarray:
    """The picture `factor` times coarser, brought back to its size: what an upscaler is given."""
    return _coarse(image, factor, cv2.INTER_CUBIC)


@bounded(grid=Range(1, 10_000))
def draw_palette(image: ndarray, grid: int = 8) -> ndarray:
    """A grid of mean colours, `grid` cells on the shorter side."""
    # cells smaller than a pixel are the pixels
    return _coarse(image, max(1.0, min(image.shape[:2]) / grid), cv2.INTER_NEAREST_EXACT)


def _coarse(image: ndarray, factor: float, back: int) -> ndarray:
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return cv2.resize(
        cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=back
    )


@bounded(gamma=Range(0, 100, above=True))
def draw_recolor(image: ndarray, gamma: float = 1.0) -> ndarray:
    """Brightness alone, Rec. 601 luma (H, W): the picture to be coloured anew."""
    level = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return level if gamma == 1 else (255 * (level / 255) ** gamma + 0.5).astype(np.uint8)


@bounded(sigma=Range(0, 1, above=True))
def draw_blur(image: ndarray, sigma: float = 0.03) -> ndarray:
    """The picture blurred; sigma in shares of the longer side."""
    width, height = image.shape[1], image.shape[0]
    pixels = sigma * max(width, height)

    if pixels <= _BROAD:
        return cv2.GaussianBlur(image, (0, 0), pixels)

    factor = pixels / (_BROAD / 4)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    coarse = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(
        cv2.GaussianBlur(coarse, (0, 0), _BROAD / 4),
        (width, height),
        interpolation=cv2.INTER_LINEAR,
    )


def draw_invert(image: ndarray) -> ndarray:
    """255 minus every level: a drawing in black on white becomes one in white on black."""
    return 255 - image


@bounded(level=Range(0, 255))
def draw_threshold(image: ndarray, level: int = 127) -> ndarray:
    """255 where all of red, green and blue are above `level`, else 0; (H, W)."""
    return np.where(image.min(axis=2) > level, 255, 0).astype(np.uint8)


@bounded(share=Range(0, 0.75, above=True, below=True), seed=SEEDS)
def draw_inpaint(
    image: ndarray, share: float = 0.25, seed: int = 0, mask: ndarray | None = None
) -> ndarray:
    """The picture with a region to be filled: (H, W, 4), alpha 0 there; the control sees −1 in
    those pixels.

    mask: (H, W), non-zero where to fill. Without one: a random ellipse of about `share` of the
    picture.
    """
    height, width = image.shape[:2]
    if mask is None:
        rng = np.random.default_rng(int(seed))
        aspect = np.exp(rng.uniform(-0.4, 0.4))
        radius = np.sqrt(share * height * width / np.pi)
        centre = rng.uniform(0.3, 0.7, 2) * (width, height)
        axes = (max(1, int(radius * aspect)), max(1, int(radius / aspect)))
        mask = cv2.ellipse(
            np.zeros((height, width), np.uint8),
            centre.astype(int).tolist(),
            axes,
            rng.uniform(0, 180),
            0,
            360,
            255,
            -1,
        )
    if mask.shape != (height, width):
        raise UserError(
            f"the inpaint mask is {mask.shape[1]}×{mask.shape[0]}, its picture {width}×{height} "
            "pixels."
        )
    return np.dstack([image, np.where(mask > 0, 0, 255).astype(np.uint8)])


def score_colours(truth: ndarray, read: ndarray) -> dict[str, float]:
    """Overlap of two pictures' colour histograms, 8×8×8 bins of RGB; 1 where a picture holds the
    same colours anywhere.

    truth, read (H, W, 3) uint8 of any two sizes.
    """
    shares = []
    for picture in (truth, read):
        bins = (picture.astype(np.int64) >> 5) @ (64, 8, 1)
        shares.append(np.bincount(bins.ravel(), minlength=512) / bins.size)
    return {"histogram": float(np.minimum(*shares).sum())}


def score_outside_hole(truth: ndarray, read: ndarray) -> dict[str, float]:
    """RMSE in shares of 255 where the hint (H, W, 4) shows the picture; what fills its hole is
    free.
    """
    if truth.shape[:2] != read.shape[:2]:
        raise ValueError(f"Pictures must be alike in shape, not {truth.shape} and {read.shape}.")
    shown = truth[..., 3] > 0 if truth.shape[2] == 4 else np.ones(truth.shape[:2], bool)
    difference = truth[shown][:, :3].astype(np.float64) - read[shown][:, :3].astype(np.float64)
    return {"rmse": float(np.sqrt(np.mean(difference**2)) / 255) if shown.any() else 0.0}
