"""Hints that are lines, drawn from pixels alone: white (255) on black, uint8 (H, W)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.conditions.parameters import Range, bounded
from zeroconv.errors import UserError
from zeroconv.stopping import stop_if_asked

_STRIP = 8  # shorter sides that count of a longer one
_BROAD_PEN = 64  # pixels from which strokes are smoothed in a smaller picture


def grey(image: ndarray) -> ndarray:
    """(H, W, 3) uint8 RGB → (H, W) uint8."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def side_of(image: ndarray) -> int:
    """The longer side in pixels, of a strip eight times the shorter one.

    Blurs and pens are shares of it; their time grows with it, and in a strip of 24 × 400,000 pixels
    they would take hours.
    """
    return min(max(image.shape[:2]), _STRIP * min(image.shape[:2]))


@bounded(low=Range(0, 10_000), high=Range(0, 10_000))
def draw_canny(image: ndarray, low: float = 100, high: float = 200) -> ndarray:
    """Canny edges of the grey picture (paper, section 4): 0 or 255, white on black; thresholds in
    grey levels × 4.
    """
    if low > high:
        raise UserError(f"canny needs low ≤ high, not low={low} and high={high}.")
    return cv2.Canny(grey(image), low, high)


@bounded(length=Range(0, 1, below=True), width=Range(1, 100))
def draw_lines(image: ndarray, length: float = 0.06, width: int = 1) -> ndarray:
    """Straight segments by LSD (von Gioi et al. 2012), the paper's Hough lines: 0 or 255.

    length: of the shortest segment kept, in shares of the picture's longer side. width: of the
    lines, in pixels.
    """
    segments_read = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey(image))[0]
    hint = np.zeros(image.shape[:2], np.uint8)
    if segments_read is None:
        return hint
    segments = segments_read.reshape(-1, 4)
    sizes = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    for x0, y0, x1, y1 in (
        np.rint(segments[sizes >= length * max(image.shape[:2])]).astype(int).tolist()
    ):
        cv2.line(hint, (x0, y0), (x1, y1), 255, int(width))
    return hint


def soft_edges(image: ndarray) -> ndarray:
    """Edge strength (H, W) float32 in [0, 1]: gradients of CIELAB at several scales, strong where
    all scales agree.

    One fixed scale for every picture, so that strengths of two pictures can be compared.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    unit = side_of(image) / 512  # blur in shares of the picture: the same drawing at every size
    product = np.ones(image.shape[:2], np.float32)
    for sigma in (1.0, 2.0, 4.0):
        stop_if_asked()
        smooth = cv2.GaussianBlur(lab, (0, 0), max(0.5, sigma * max(unit, 0.5)))
        stop_if_asked()
        x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
        y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
        product *= np.sqrt((x * x + y * y).sum(-1))
    return np.tanh(np.cbrt(product) / 9.0).astype(np.float32)


def draw_softedge(image: ndarray) -> ndarray:
    """Soft edges without learned weights: 0–255, bright where the edge is strong."""
    return (soft_edges(image) * 255 + 0.5).astype(np.uint8)


def thin(strength: ndarray) -> ndarray:
    """Keep pixels (H, W) bool that are a maximum along a row, a column or a diagonal, as the edge
    runs across it.
    """
    ridge = np.zeros(strength.shape, bool)
    kernels = (
        np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0]], np.uint8),
        np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], np.uint8),
        np.eye(3, dtype=np.uint8),
        np.eye(3, dtype=np.uint8)[::-1].copy(),
    )
    for kernel in kernels:
        stop_if_asked()
        ridge |= (cv2.dilate(strength, kernel) == strength) & (
            cv2.erode(strength, kernel) < strength
        )
    return ridge


@bounded(
    threshold=Range(0, 1, above=True, below=True),
    width=Range(0, 0.2, above=True, below=True),
    strokes=Range(0, 1),
)
def draw_scribble(
    image: ndarray, threshold: float = 0.45, width: float = 0.012, strokes: int = 0
) -> ndarray:
    """Scribbles, as a person would draw them with a broad pen: 0 or 255.

    From soft edges: ridges above `threshold`, specks dropped, drawn `width` (share of the longer
    side) broad. With `strokes` = 1 the picture is a drawing already, dark on light or light on
    dark, and only brought to that form.
    """
    if strokes:
        return stroke_mask(image)
    strength = soft_edges(image)
    stop_if_asked()
    ridge = (thin(strength) & (strength > threshold)).astype(np.uint8)
    side = side_of(image)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ridge, connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < max(4, side // 24)
    ridge[small[labels]] = 0
    stop_if_asked()
    smooth = _stroked(ridge, max(2, round(width * side)))
    return ((smooth > 0.5) * 255).astype(np.uint8)


def _stroked(ridge: ndarray, pen: int) -> ndarray:
    """Lines (H, W) of 0 and 1 drawn with a pen of so many pixels, and blurred by half of it:
    float32."""
    if pen <= _BROAD_PEN:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (pen + 1, pen + 1))
        return cv2.GaussianBlur(cv2.dilate(ridge, kernel).astype(np.float32), (0, 0), pen / 2)

    # the time of both grows with the pen, that of a distance does not
    height, width = ridge.shape
    if not ridge.any():
        return np.zeros(ridge.shape, np.float32)
    far = cv2.distanceTransform(1 - ridge, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    factor = 2 * pen / _BROAD_PEN
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    broad = cv2.resize((far <= pen / 2).astype(np.float32), small, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(broad, (0, 0), _BROAD_PEN / 4)
    return cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)


def stroke_mask(drawing: ndarray) -> ndarray:
    """A user's drawing (H, W, 3) uint8 → its strokes white on black: the rarer side of Otsu's
    threshold is the pen.
    """
    level = grey(drawing)
    if level.min() == level.max():
        return np.zeros(level.shape, np.uint8)
    cut, _ = cv2.threshold(level, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    light = level > cut
    return np.where(light if light.mean() < 0.5 else ~light, 255, 0).astype(np.uint8)


# a blur of 50 pixels takes three seconds at 4,096 × 4,096 pixels
@bounded(sigma=Range(0, 50), tau=Range(0, 1, above=True), sharpness=Range(0, 10_000, above=True))
def draw_lineart(
    image: ndarray, sigma: float = 0.0, tau: float = 0.98, sharpness: float = 60.0
) -> ndarray:
    """Line art by extended differences of Gaussians, XDoG (Winnemöller et al. 2012): 0–255, white
    on black.

    sigma: of the narrower Gaussian in pixels; 0: 1 at 512 pixels, never below 0.6. tau: weight of
    the broader one, 1.6 σ. sharpness: slope of the soft threshold.
    """
    level = grey(image).astype(np.float32) / 255
    sigma = sigma or max(0.6, side_of(image) / 512)
    difference = cv2.GaussianBlur(level, (0, 0), sigma) - tau * cv2.GaussianBlur(
        level, (0, 0), 1.6 * sigma
    )
    # a flat region of any brightness gives (1 − τ)·grey ≥ 0 and stays black; the dark side of
    # an edge goes below
    ink = np.tanh(sharpness * np.maximum(0.0, 0.002 - difference))
    return (ink * 255 + 0.5).astype(np.uint8)
