"""Where people are, by MediaPipe's selfie segmentation network (Apache-2.0)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.annotators.litert import run

SIDE = 256  # pixels that the network reads
SURE = 0.5


def person_mask(image: ndarray, weights: Path, bodies: Sequence[ndarray]) -> ndarray:
    """Picture (H, W, 3) uint8 RGB → (H, W) uint8, 255 where people are, else 0.

    The network reads the whole picture at 256² pixels. It was made for pictures of people, and
    takes a cat for one; so patches that hold no joint of `bodies` (18, 3) are left out. A note says
    where that leaves nothing.
    """
    height, width = image.shape[:2]
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    share = run(weights, small.astype(np.float32) / 255)[0][..., 0]
    share = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
    mask = np.where(share >= SURE, 255, 0).astype(np.uint8)
    return _with_joints(mask, bodies)


def _with_joints(mask: ndarray, bodies: Sequence[ndarray]) -> ndarray:
    """The connected patches of a mask in which a known joint lies."""
    height, width = mask.shape
    _, patches = cv2.connectedComponents(mask)
    kept = set()
    for body in bodies:
        columns, rows = np.floor(body[body[:, 2] > 0, :2]).astype(int).T
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        kept |= set(patches[rows[inside], columns[inside]].tolist())
    kept.discard(0)
    if not kept:
        warnings.warn(
            "Nobody is seen in the picture, so the mask of people is empty; draw it by hand "
            "where somebody is there.",
            stacklevel=4,
        )
    return np.where(np.isin(patches, list(kept)), mask, 0).astype(np.uint8)
