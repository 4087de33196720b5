"""Checks of the two maps that a score compares."""

from __future__ import annotations

import numpy as np
from numpy import ndarray


def check_alike(truth: ndarray, read: ndarray, dimensions: int) -> None:
    """Raises ValueError for maps of different shape, empty ones, and values that are no numbers."""
    if truth.shape != read.shape or truth.ndim != dimensions:
        raise ValueError(
            f"Maps must be alike and have {dimensions} dimensions, not {truth.shape} and "
            f"{read.shape}."
        )
    if not truth.size:
        raise ValueError(f"Maps of shape {truth.shape} hold nothing to compare.")
    for array in (truth, read):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("A map holds values that are no numbers.")


def check_bytes(*maps: ndarray) -> None:
    """A map in 0–1 where 0–255 is meant would be nearly black, and two black maps agree: no score
    may flatter so.
    """
    for array in maps:
        if array.dtype != np.uint8:
            raise ValueError(f"Maps must be uint8 in 0–255, not {array.dtype}.")
